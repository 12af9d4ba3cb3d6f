//! What doubles hand on to the store behind them.

/// The verbs of events, all of them handed on.
macro_rules! events_of_inner {
    ($double:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::EventLog for $double {
            async fn horizon(&self) -> Result<$crate::store::Horizon, $crate::store::StoreError> {
                self.inner.horizon().await
            }

            async fn arrivals(
                &self,
                spans: &[$crate::store::Span],
                limit: usize,
            ) -> Result<Vec<$crate::store::Arrival>, $crate::store::StoreError> {
                self.inner.arrivals(spans, limit).await
            }

            async fn events(
                &self,
                query: &$crate::store::FeedQuery,
            ) -> Result<$crate::store::FeedPage, $crate::store::StoreError> {
                self.inner.events(query).await
            }

            async fn facts(
                &self,
                orders: &[$crate::order::OrderId],
            ) -> Result<Vec<($crate::order::OrderId, $crate::order::OrderFacts)>, $crate::store::StoreError>
            {
                self.inner.facts(orders).await
            }

            async fn holder(&self) -> Result<Option<$crate::store::Holder>, $crate::store::StoreError> {
                self.inner.holder().await
            }

            async fn lease(
                &self,
                name: &str,
                lasting: std::time::Duration,
            ) -> Result<Option<$crate::store::Lease>, $crate::store::StoreError> {
                self.inner.lease(name, lasting).await
            }

            async fn move_on(
                &self,
                name: &str,
                lease: $crate::store::Lease,
                to: $crate::order::Cursor,
                lasting: std::time::Duration,
            ) -> Result<Option<$crate::store::Lease>, $crate::store::StoreError> {
                self.inner.move_on(name, lease, to, lasting).await
            }

            async fn give_back(
                &self,
                name: &str,
                lease: $crate::store::Lease,
            ) -> Result<(), $crate::store::StoreError> {
                self.inner.give_back(name, lease).await
            }

            async fn place_of(
                &self,
                name: &str,
            ) -> Result<Option<$crate::order::Cursor>, $crate::store::StoreError> {
                self.inner.place_of(name).await
            }
        }
    };
}

/// What is asked about orders, handed on.
macro_rules! insight_of_inner {
    ($double:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::Insight for $double {
            async fn ping(&self) -> Result<(), $crate::store::StoreError> {
                self.inner.ping().await
            }

            async fn count(
                &self,
                statuses: &[$crate::order::Status],
            ) -> Result<$crate::store::Counts, $crate::store::StoreError> {
                self.inner.count(statuses).await
            }

            async fn backlog(&self) -> Result<$crate::order::Backlog, $crate::store::StoreError> {
                self.inner.backlog().await
            }

            async fn overdue(
                &self,
                late: std::time::Duration,
                limit: usize,
            ) -> Result<$crate::order::LateSteps, $crate::store::StoreError> {
                self.inner.overdue(late, limit).await
            }

            async fn late(
                &self,
                limit: usize,
            ) -> Result<$crate::order::LateOrders, $crate::store::StoreError> {
                self.inner.late(limit).await
            }

            async fn audit(
                &self,
                after: Option<&str>,
                limit: usize,
            ) -> Result<$crate::store::AuditPage, $crate::store::StoreError> {
                self.inner.audit(after, limit).await
            }

            async fn audit_reports(
                &self,
                after: (&str, i64),
                until: Option<&str>,
                limit: usize,
            ) -> Result<Vec<$crate::order::AuditedReport>, $crate::store::StoreError> {
                self.inner.audit_reports(after, until, limit).await
            }
        }
    };
}

/// The verbs of keys, all of them handed on.
macro_rules! keys_of_inner {
    ($double:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::KeyStore for $double {
            async fn live_keys(&self) -> Result<Vec<$crate::keys::StoredKey>, $crate::store::StoreError> {
                self.inner.live_keys().await
            }

            async fn note_uses(
                &self,
                uses: &[$crate::keys::KeyUse],
            ) -> Result<Vec<$crate::keys::KeyId>, $crate::store::StoreError> {
                self.inner.note_uses(uses).await
            }

            async fn list_keys(&self) -> Result<$crate::keys::KeyList, $crate::store::StoreError> {
                self.inner.list_keys().await
            }

            async fn create_key(
                &self,
                key: &$crate::keys::StoredKey,
            ) -> Result<$crate::keys::KeyCreation, $crate::store::StoreError> {
                self.inner.create_key(key).await
            }

            async fn revoke_key(
                &self,
                id_or_name: &str,
            ) -> Result<Option<$crate::keys::KeyRecord>, $crate::store::StoreError> {
                self.inner.revoke_key(id_or_name).await
            }
        }
    };
}

/// What keeps a database fit, and its keys, handed on.
macro_rules! maintenance_of_inner {
    ($double:ty) => {
        $crate::store::forwarded::keys_of_inner!($double);

        #[async_trait::async_trait]
        impl $crate::store::Maintenance for $double {
            async fn migrate(&self) -> Result<(), $crate::store::StoreError> {
                self.inner.migrate().await
            }

            async fn expire_idempotency_keys(&self, limit: usize) -> Result<u64, $crate::store::StoreError> {
                self.inner.expire_idempotency_keys(limit).await
            }

            async fn close(&self) {
                self.inner.close().await;
            }
        }
    };
}

pub(crate) use {events_of_inner, insight_of_inner, keys_of_inner, maintenance_of_inner};
