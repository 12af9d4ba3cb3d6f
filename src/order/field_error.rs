//! What is wrong with one field of a request.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, SchemaType, Type},
    },
};

/// What is wrong with one field, in words that tell how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's name in the request.
    pub field: String,
    /// A stable word for programs.
    pub code: FieldCode,
    /// A sentence for people.
    pub message: String,
}

impl FieldError {
    /// A field, what is wrong with it, and what it must be.
    pub fn new(field: &str, code: FieldCode, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), code, message: message.into() }
    }
}

/// What can be wrong with a field; the API document is made from this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldCode {
    /// It is not there.
    Required,
    /// It is no string.
    Type,
    /// It is empty or too long.
    Length,
    /// It holds a control character.
    ControlCharacter,
    /// It holds no character that can be seen.
    Blank,
    /// It is none of the few values that it may have.
    Choice,
    /// It is no number, or one outside its limits.
    Range,
    /// It is no cursor of ours.
    Cursor,
    /// A header that is malformed or given twice.
    Header,
    /// A parameter that is given more than once.
    Repeated,
}

impl FieldCode {
    /// All ten.
    pub const ALL: [Self; 10] = [
        Self::Required,
        Self::Type,
        Self::Length,
        Self::ControlCharacter,
        Self::Blank,
        Self::Choice,
        Self::Range,
        Self::Cursor,
        Self::Header,
        Self::Repeated,
    ];

    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Type => "type",
            Self::Length => "length",
            Self::ControlCharacter => "control_character",
            Self::Blank => "blank",
            Self::Choice => "choice",
            Self::Range => "range",
            Self::Cursor => "cursor",
            Self::Header => "header",
            Self::Repeated => "repeated",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Required => "it is not there",
            Self::Type => "it is no string",
            Self::Length => "it is empty or too long",
            Self::ControlCharacter => "it holds a control character",
            Self::Blank => "it holds no character that can be seen",
            Self::Choice => "it is none of the values that it may have",
            Self::Range => "it is no number, or one outside its limits",
            Self::Cursor => "it was not taken from an answer of ours",
            Self::Header => "the header is malformed or given twice",
            Self::Repeated => "the parameter is given more than once",
        }
    }
}

impl PartialSchema for FieldCode {
    fn schema() -> RefOr<Schema> {
        let meanings = Self::ALL.map(|code| format!("`{}`: {}", code.as_str(), code.meaning()));
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .enum_values(Some(Self::ALL.map(Self::as_str)))
            .description(Some(format!("A stable word for programs. {}.", meanings.join("; "))))
            .into()
    }
}

impl ToSchema for FieldCode {
    fn name() -> Cow<'static, str> {
        "FieldCode".into()
    }
}
