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
    Cursor, Event, EventKind, FeedMeta, OrderId, Reason, Report, Source, Status,
    details::{MAX_ADDRESS_CHARS, MAX_NAME_CHARS},
    report::{MAX_ID_CHARS, MAX_MINUTES, MAX_NOTE_CHARS, MAX_POSITION, MAX_STATION_CHARS},
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

/// What an event says that leads to no status of its own.
fn meaning(kind: EventKind) -> Option<&'static str> {
    Some(match kind {
        EventKind::Reached(_) => return None,
        EventKind::Created => "it was accepted",
        EventKind::Ready => "the kitchen says that it can be fetched",
        EventKind::CourierAssigned => "a courier will fetch it",
        EventKind::CourierAtPickup => "the courier waits for it",
        EventKind::CourierAtDoor => "the courier stands at the customer's door",
        EventKind::DeliveryFailed => "the courier could not hand it over",
        EventKind::Delayed => "the current stage takes longer",
        EventKind::Reverted => "the latest step was taken back",
        EventKind::Erased => "the customer's name and address are gone",
    })
}

impl PartialSchema for EventKind {
    fn schema() -> RefOr<Schema> {
        let told = |kind: EventKind| Some(format!("`{kind}`: {}", meaning(kind)?));
        let meanings: Vec<String> = EventKind::ALL.into_iter().filter_map(told).collect();
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .enum_values(Some(EventKind::ALL.map(EventKind::as_str)))
            .description(Some(format!(
                "What happened. A status: the order came to it; {}.",
                meanings.join("; ")
            )))
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

/// What clients send as text; empty is as good as not sent.
macro_rules! sent {
    ($(#[doc = $doc:literal] $name:ident = $pattern:expr;)+) => {$(
        #[doc = $doc]
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                pattern(&$pattern).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+};
}

sent! {
    /// What is told beside an order.
    Include = "^((allowed|eta)(,(allowed|eta))*)?$";
    /// A position in a timeline.
    Position = "^([1-9][0-9]{0,8}|0)?$";
    /// The last cursor that was seen.
    Seen = format!("^({CURSOR})?$");
    /// A cursor or `now`.
    After = format!("^(now|{CURSOR})?$");
    /// A time up to 20 s in the ways that are shown to people; others are understood too.
    Wait = "^(([0-9]|1[0-9]|20)s|([0-9]{1,4}|1[0-9]{4}|20000)ms)?$";
}

/// A moment as we write it.
pub(crate) fn timestamp() -> ObjectBuilder {
    text(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", "RFC 3339 in UTC, whole milliseconds.")
        .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::DateTime)))
}

/// The events of an order: CREATED and PLACED, and what followed.
pub(crate) fn timeline() -> ArrayBuilder {
    ArrayBuilder::new()
        .items(Ref::from_schema_name(Event::name()))
        .min_items(Some(2))
        .description(Some("Its events in the order of their positions."))
}

/// Who said it and what, as its event tells.
pub(super) fn event_meta() -> ObjectBuilder {
    let number =
        |least: i32| ObjectBuilder::new().schema_type(SchemaType::new(Type::Integer)).minimum(Some(least));
    let word = || ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
    let choice = |names: Vec<&'static str>| word().enum_values(Some(names));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .property("source", text("^[a-z]+$", "Of CREATED `http`, `topic`, `board` or `simulator`; else who reported it."))
        .property("topic", word())
        .property("partition", number(0))
        .property("offset", number(0))
        .property("by", word().description(Some("Under which name.")))
        .property("occurred_at", timestamp())
        .property("reason", choice(Reason::ALL.map(Reason::as_str).to_vec()))
        .property("minutes", number(1))
        .property("station", word())
        .property("note", word())
        .property("inferred", ObjectBuilder::new().schema_type(SchemaType::new(Type::Boolean)))
        .property("reverts", number(1))
        .property("from", Ref::from_schema_name(Status::name()))
        .property("to", Ref::from_schema_name(Status::name()))
        .property("status", Ref::from_schema_name(Status::name()))
        .required("source")
        .description(Some(
            "Who said it and what, if there is anything to say. CREATED tells where the order came from; an order from a \
             topic also has `topic`, `partition` and `offset` of its message. `inferred` marks a step that a later report \
             skipped; REVERTED names the position that it `reverts` and the statuses `from` and `to`; what does not change \
             the status keeps it in `status`.",
        ))
}

/// What a report may be of.
pub(super) fn report_event() -> ObjectBuilder {
    let kinds = ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
    kinds.enum_values(Some(Report::KINDS.map(EventKind::as_str))).description(Some("What happened."))
}

/// What may be left out, or null.
fn optional(of: ObjectBuilder, description: &str) -> OneOfBuilder {
    let null = ObjectBuilder::new().schema_type(SchemaType::new(Type::Null));
    OneOfBuilder::new().item(of).item(null).description(Some(description))
}

fn limited(most: u32, description: &str) -> OneOfBuilder {
    let number = ObjectBuilder::new().schema_type(SchemaType::new(Type::Integer));
    optional(number.minimum(Some(1)).maximum(Some(most)), description)
}

/// The sender's name for a report.
pub(super) fn report_id() -> OneOfBuilder {
    let id = pattern(&format!("^[ -~]{{1,{MAX_ID_CHARS}}}$"));
    optional(id, "Your name for this report: the same one again changes nothing.")
}

/// When it happened by the sender's clock.
pub(super) fn occurred_at() -> OneOfBuilder {
    let moment = ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::DateTime)));
    optional(moment, "When it happened by your clock: from 1970 on, at most 1 minute ahead.")
}

/// Why it happened.
pub(super) fn reason() -> OneOfBuilder {
    let reason = Ref::from_schema_name(Reason::name());
    let null = ObjectBuilder::new().schema_type(SchemaType::new(Type::Null));
    let told = "Why: for `CANCELLED`, where it is required, `DELIVERY_FAILED` and `DELAYED`.";
    OneOfBuilder::new().item(reason).item(null).description(Some(told))
}

/// By how much an order is delayed.
pub(super) fn minutes() -> OneOfBuilder {
    limited(MAX_MINUTES.into(), "By how many minutes: for `DELAYED`, where it is required.")
}

/// What else there is to say.
pub(super) fn note() -> OneOfBuilder {
    let note = pattern(&format!("^[^{CONTROL}]{{0,{MAX_NOTE_CHARS}}}$"));
    optional(note, "What else there is to say, for those who work on the order; no control characters.")
}

/// Where in the kitchen.
pub(super) fn station() -> OneOfBuilder {
    let station = pattern(&format!("^[^{CONTROL}]{{0,{MAX_STATION_CHARS}}}$"));
    optional(station, "Where in the kitchen; no control characters.")
}

/// Who says so.
pub(super) fn source() -> OneOfBuilder {
    let named = ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
    let named = named.enum_values(Some(Source::NAMED.map(Source::as_str)));
    optional(named, "Who says so; `api`, if it is left out.")
}

/// Which position is taken back.
pub(super) fn reverts() -> OneOfBuilder {
    limited(MAX_POSITION, "Which position a `REVERTED` takes back; the latest, if it is left out.")
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
