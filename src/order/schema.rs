//! What the API document says of types whose JSON form is written by hand here.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr,
        schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type},
    },
};

use super::{
    Cursor, Event, EventKind, FeedMeta, OrderId,
    details::{MAX_ADDRESS_CHARS, MAX_NAME_CHARS},
};

/// What stands behind `ORD-`, a ULID, as a pattern.
pub(crate) const ID_CHARACTERS: &str = "[0-7][0-9A-HJKMNP-TV-Z]{25}";
/// What `str::trim` takes away, for a pattern in any dialect: they differ in what `\s` is.
const SPACE: &str = r"\u0009-\u000d\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";
/// Control characters likewise.
const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";

/// What can't be seen beside these: ignorable characters, blanks and the marks that go with any letter. Of scripts of their own
/// and from beyond U+FFFF there are some hundred more, which no pattern in all dialects can name: `visible` judges.
const UNSEEN: &str = r"\u00ad\u0300-\u036f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\uffff";

impl PartialSchema for OrderId {
    fn schema() -> RefOr<Schema> {
        text(&format!("^ORD-{ID_CHARACTERS}$"), "`ORD-` and 26 characters; later orders have greater ids.")
            .into()
    }
}

impl ToSchema for OrderId {
    fn name() -> Cow<'static, str> {
        "OrderId".into()
    }
}

impl PartialSchema for EventKind {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .enum_values(Some(EventKind::ALL.map(EventKind::as_str)))
            .description(Some("What happened; at most once each and always in this order."))
            .into()
    }
}

impl ToSchema for EventKind {
    fn name() -> Cow<'static, str> {
        "EventKind".into()
    }
}

/// A cursor, as a pattern.
const CURSOR: &str = "0|[1-9][0-9]{0,18}";

impl PartialSchema for Cursor {
    fn schema() -> RefOr<Schema> {
        text(&format!("^({CURSOR})$"), "A place in the feed; later events have greater ones.").into()
    }
}

impl ToSchema for Cursor {
    fn name() -> Cow<'static, str> {
        "Cursor".into()
    }
}

/// A cursor or `now`, as a client sends it; empty is as good as not sent.
pub(crate) struct After;

impl PartialSchema for After {
    fn schema() -> RefOr<Schema> {
        pattern(&format!("^(now|{CURSOR})?$")).into()
    }
}

impl ToSchema for After {
    fn name() -> Cow<'static, str> {
        "After".into()
    }
}

/// A time up to 20 s in the ways that are shown to people; others are understood too.
pub(crate) struct Wait;

impl PartialSchema for Wait {
    fn schema() -> RefOr<Schema> {
        pattern("^(([0-9]|1[0-9]|20)s|([0-9]{1,4}|1[0-9]{4}|20000)ms)?$").into()
    }
}

impl ToSchema for Wait {
    fn name() -> Cow<'static, str> {
        "Wait".into()
    }
}

/// A position in a timeline as a client sends it; empty is as good as not sent.
pub(crate) struct Position;

impl PartialSchema for Position {
    fn schema() -> RefOr<Schema> {
        let seen: Vec<String> = (0..=EventKind::LAST_SEQ).map(|seq| seq.to_string()).collect();
        // Up to 9 a digit is all there is to it.
        let one =
            if seen.len() > 10 { format!("({})", seen.join("|")) } else { format!("[0-{}]", seen.len() - 1) };
        pattern(&format!("^{one}?$")).into()
    }
}

impl ToSchema for Position {
    fn name() -> Cow<'static, str> {
        "Position".into()
    }
}

/// A moment as we write it.
pub(crate) fn timestamp() -> ObjectBuilder {
    text(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", "RFC 3339 in UTC, whole milliseconds.")
        .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::DateTime)))
}

/// The events of an order: CREATED and PLACED, and what followed.
pub(super) fn timeline() -> ArrayBuilder {
    ArrayBuilder::new()
        .items(Ref::from_schema_name(Event::name()))
        .min_items(Some(2))
        .max_items(Some(EventKind::ALL.len()))
        .description(Some("Its events in the order of the life cycle."))
}

/// Where an order came from, as its CREATED event tells.
pub(super) fn origin() -> ObjectBuilder {
    let number = || ObjectBuilder::new().schema_type(SchemaType::new(Type::Integer)).minimum(Some(0));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .property("source", text("^[a-z]+$", "`http`, `topic`, `board` or `simulator`."))
        .property("topic", ObjectBuilder::new().schema_type(SchemaType::new(Type::String)))
        .property("partition", number())
        .property("offset", number())
        .required("source")
        .description(Some(
            "Where it came from, if there is anything to say: `source` is `http`, `topic`, `board` or `simulator`; \
             an order from a topic also has `topic`, `partition` and `offset` of its message.",
        ))
}

/// What is told of an event, if there is anything to say.
pub(super) fn feed_meta() -> OneOfBuilder {
    OneOfBuilder::new()
        .item(Ref::from_schema_name(FeedMeta::name()))
        .item(ObjectBuilder::new().schema_type(SchemaType::new(Type::Null)))
}

/// A customer name or an item as a client may send it.
pub(super) fn name() -> ObjectBuilder {
    trimmed(MAX_NAME_CHARS)
}

/// An address as a client may send it.
pub(super) fn address() -> ObjectBuilder {
    trimmed(MAX_ADDRESS_CHARS)
}

/// Any space around, then 1 to `max` characters of which none is a control character and one at least can be seen.
fn trimmed(max: usize) -> ObjectBuilder {
    let (inner, edge) = (format!("[^{CONTROL}]"), format!("[^{CONTROL}{SPACE}]"));
    let seen = format!(r"(?=[\s\S]*[^{CONTROL}{SPACE}{UNSEEN}])");
    let pattern = format!("^{seen}[{SPACE}]*{edge}(?:{inner}{{0,{}}}{edge})?[{SPACE}]*$", max - 2);
    let words = "characters after trimming, no control characters, at least one that can be seen";
    text(&pattern, &format!("1 to {max} {words}."))
}

fn text(pattern: &str, description: &str) -> ObjectBuilder {
    self::pattern(pattern).description(Some(description))
}

fn pattern(pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).pattern(Some(pattern))
}
