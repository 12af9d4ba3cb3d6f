//! The kinds of errors that clients are told of, by stable words; the API document lists them from here.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, SchemaType, Type},
    },
};

/// Makes an enum of kinds, each with its word and its title.
macro_rules! codes {
    ($($name:ident = $word:literal, $title:literal;)+) => {
        /// What kind of error it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProblemCode {
            $(#[doc = $title] $name,)+
        }

        impl ProblemCode {
            /// All.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$name),+];

            /// The word in JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// The same for people.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }
        }
    };
}

codes! {
    Malformed = "malformed-request", "The request can't be read";
    Invalid = "validation-error", "The request holds invalid values";
    KeyRequired = "key-required", "A key is required";
    KeyNotValid = "key-not-valid", "The key is not valid";
    NotForThisRole = "not-for-this-role", "Not for this key's role";
    KeysNeeded = "keys-needed", "Keys are needed";
    Forbidden = "forbidden", "Not allowed";
    NotFound = "not-found", "Not found";
    MethodNotAllowed = "method-not-allowed", "Method not allowed";
    TooSlow = "request-timeout", "The request did not arrive in time";
    OrderFinished = "order-finished", "The order is finished";
    NothingToRevert = "nothing-to-revert", "Nothing to take back";
    TooLateToRevert = "too-late-to-revert", "Too late to take back";
    ChangedMeanwhile = "changed-meanwhile", "The order has changed meanwhile";
    TimelineFull = "timeline-full", "The timeline is full";
    TooLarge = "body-too-large", "The body is too large";
    UnsupportedMediaType = "unsupported-media-type", "The content type or coding is not supported";
    KeyReused = "idempotency-key-reused", "The idempotency key was used before";
    ReportIdReused = "report-id-reused", "The report's id was used before";
    TooManyStreams = "too-many-streams", "Too many event streams";
    HeadTooLarge = "head-too-large", "The request's head is too large";
    Internal = "internal-error", "Internal error";
    Unavailable = "unavailable", "Temporarily unavailable";
}

impl Serialize for ProblemCode {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.as_str())
    }
}

impl PartialSchema for ProblemCode {
    fn schema() -> RefOr<Schema> {
        let meanings = Self::ALL.map(|code| format!("`{}`: {}", code.as_str(), code.title()));
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .enum_values(Some(Self::ALL.map(Self::as_str)))
            .description(Some(format!("A stable word for programs. {}.", meanings.join("; "))))
            .into()
    }
}

impl ToSchema for ProblemCode {
    fn name() -> Cow<'static, str> {
        "ProblemCode".into()
    }
}
