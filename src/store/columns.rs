//! The columns of an order as statements name them, in both dialects.

/// What is published of an order, each behind `$of`, such as `o.`.
macro_rules! placed_columns {
    ($of:literal) => {
        concat!(
            $of,
            "order_id, ",
            $of,
            "customer_name, ",
            $of,
            "address, ",
            $of,
            "item, ",
            $of,
            "size, ",
            $of,
            "created_at"
        )
    };
}

/// All that is read of an order.
macro_rules! order_columns {
    ($of:literal) => {
        concat!(
            $crate::store::columns::placed_columns!($of),
            ", ",
            $of,
            "status, ",
            $of,
            "updated_at, ",
            $of,
            "due_at, ",
            $of,
            "expected_at"
        )
    };
}

pub(super) use {order_columns, placed_columns};
