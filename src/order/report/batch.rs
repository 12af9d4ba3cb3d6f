//! Several reports sent together, each with the order that it is about.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;

use super::{
    super::{FieldCode, FieldError, OrderId, ParseIdError, Timestamp, json},
    Report, ReportErrors, ReportRequest, Reporter,
};

/// One of several reports, as somebody sent it.
#[derive(Debug, Clone, ToSchema)]
#[schema(as = NewOrderReport)]
pub struct ReportItem {
    /// Which order.
    #[schema(required, value_type = OrderId)]
    order_id: Option<Value>,
    /// What is reported of it.
    #[serde(flatten)]
    request: ReportRequest,
}

/// The part of an item that is no part of a report.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct About {
    order_id: Option<Value>,
}

impl ReportItem {
    /// Reads an array of them: the outer error is that of the array, the inner ones those of single items.
    pub fn parse_all(body: &[u8]) -> Result<Vec<Result<Self, serde_json::Error>>, serde_json::Error> {
        let items: Vec<Box<RawValue>> = json::read(body)?;
        Ok(items.iter().map(|item| Self::parse(item.get().as_bytes())).collect())
    }

    fn parse(item: &[u8]) -> Result<Self, serde_json::Error> {
        // Twice over the same few bytes: a struct in a struct would take a field that is there twice.
        let request = ReportRequest::parse(item)?;
        let About { order_id } = json::object(item)?;
        Ok(Self { order_id, request })
    }

    /// Its `order_id`, as it was sent.
    pub fn order_id(&self) -> Option<&str> {
        self.order_id.as_ref()?.as_str()
    }

    /// Its `id`, as it was sent.
    pub fn id(&self) -> Option<&str> {
        self.request.id()
    }

    /// The report and the id of its order, if that can be one; `now` is what the sender's clock is held to.
    pub fn check(
        self,
        reporter: Option<&Reporter>,
        now: Timestamp,
    ) -> Result<(Result<OrderId, ParseIdError>, Report), ReportErrors> {
        let order_id = match self.order_id {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(FieldError::new("order_id", FieldCode::Type, "must be a string")),
            None => Err(FieldError::new("order_id", FieldCode::Required, "is required")),
        };
        match (order_id, self.request.check(reporter, now)) {
            (Ok(order_id), Ok(report)) => Ok((order_id.parse(), report)),
            (order_id, checked) => {
                let others = checked.err().map(|ReportErrors(errors)| errors).unwrap_or_default();
                Err(ReportErrors(order_id.err().into_iter().chain(others).collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{EventKind, Source};

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().expect("a moment")
    }

    #[test]
    fn each_item_is_read_by_itself() {
        let body = br#"[{"order_id": "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV", "event": "READY", "id": "a"},
            ["READY"], null, {"event": "READY", "event": "READY"}, {"order_id": "a", "order_id": "b"},
            {"order_id": "7", "event": "READY"}]"#;
        let items = ReportItem::parse_all(body).expect("an array");
        let read: Vec<bool> = items.iter().map(Result::is_ok).collect();
        assert_eq!(read, [true, false, false, false, false, true]);
        let mut items = items.into_iter().flatten();
        let item = items.next().expect("an item");
        assert_eq!((item.order_id(), item.id()), (Some("ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV"), Some("a")));
        let (order_id, report) = item.check(None, now()).expect("is well");
        assert_eq!(order_id, "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse());
        let expected = Report { id: Some("a".to_owned()), ..Report::of(EventKind::Ready, Source::Api) };
        assert_eq!(report, expected);
        let (order_id, _) =
            items.next().expect("an item").check(None, now()).expect("is well but for the id");
        assert!(order_id.is_err());
        assert!(ReportItem::parse_all(b"\xef\xbb\xbf[]").is_ok_and(|items| items.is_empty()));
        for bad in ["{}", "7", "", "[{}", "[{]", "[] []"] {
            assert!(ReportItem::parse_all(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_order_is_named_beside_all_else_that_is_wrong() {
        for (item, expected) in [
            (r#"{"event": "READY"}"#, &[("order_id", FieldCode::Required)][..]),
            (r#"{"order_id": null, "event": "READY"}"#, &[("order_id", FieldCode::Required)]),
            (
                r#"{"order_id": 7, "event": "PLACED"}"#,
                &[("order_id", FieldCode::Type), ("event", FieldCode::Choice)],
            ),
            (r#"{"order_id": "7"}"#, &[("event", FieldCode::Required)]),
        ] {
            let item = ReportItem::parse(item.as_bytes()).expect("an object");
            let ReportErrors(errors) = item.check(None, now()).expect_err("is wrong");
            let errors: Vec<_> = errors.iter().map(|error| (error.field.as_str(), error.code)).collect();
            assert_eq!(errors, expected);
        }
    }
}
