//! Errors as clients see them: RFC 9457 problems. Nothing inside the service shows through.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem_code::ProblemCode;
use crate::{
    order::{Conflict, DetailsErrors, EventKind, FieldCode, FieldError, ReportErrors},
    telemetry::RequestId,
    tracker::{PlaceError, ReportError, StoreError},
};

/// The media type of every error.
pub(super) const CONTENT_TYPE: &str = "application/problem+json";
/// What a client is told to wait before it tries again, in seconds.
const RETRY_AFTER: &str = "1";

/// An error on its way out; `observe` adds path and request id and writes the body.
#[derive(Debug, Clone)]
pub struct Problem {
    pub(super) status: StatusCode,
    code: ProblemCode,
    detail: String,
    errors: Vec<FieldError>,
    allowed: Option<Vec<EventKind>>,
    pub(super) cause: Option<LogDetail>,
}

/// Why a request failed, on its way to the log; nothing of it goes out.
#[derive(Debug, Clone)]
pub(super) struct LogDetail(pub(super) String);

/// The body of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `/problems/` and the code: a name, not a page.
    #[serde(rename = "type")]
    #[schema(pattern = "^/problems/[a-z-]+$")]
    pub kind: String,
    /// The kind of error in words.
    pub title: String,
    /// The HTTP status again.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened here and what to do.
    pub detail: String,
    /// The path that was asked for, if it could be read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// A stable word for programs.
    pub code: ProblemCode,
    /// One entry per field that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1)]
    pub errors: Vec<FieldError>,
    /// Of a 409: what may be reported of the order now and would be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<EventKind>, required = false)]
    pub allowed: Option<Vec<EventKind>>,
    /// Also in the `x-request-id` header, and in our logs.
    pub request_id: String,
}

impl Problem {
    fn new(status: StatusCode, code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), allowed: None, cause: None }
    }

    /// 400: the request can't be read at all.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ProblemCode::Malformed, detail)
    }

    /// 400: single fields are wrong.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = "see errors for the fields and what they must be";
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, ProblemCode::Invalid, detail) }
    }

    /// 400: one parameter or header is wrong.
    pub fn invalid_value(field: &str, code: FieldCode, message: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(field, code, message)])
    }

    /// 403: a form that was not sent from here.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ProblemCode::Forbidden, detail)
    }

    /// 401: who asks has not said who he is.
    pub fn key_required() -> Self {
        let detail = "send a key: Authorization: Bearer otk_...";
        Self::new(StatusCode::UNAUTHORIZED, ProblemCode::KeyRequired, detail)
    }

    /// 401: what was sent is no key that is good.
    pub fn key_not_valid() -> Self {
        let detail = "this key is mistyped, unknown or revoked";
        Self::new(StatusCode::UNAUTHORIZED, ProblemCode::KeyNotValid, detail)
    }

    /// 503: nobody can be named yet.
    pub(super) fn keys_not_read() -> Self {
        Self::unavailable("the keys could not be read yet; try again shortly")
    }

    /// 403: the key is good, and not for this.
    pub fn not_for_this_role(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ProblemCode::NotForThisRole, detail)
    }

    /// 403: what everybody may do only as long as no keys are asked for.
    pub fn keys_needed() -> Self {
        let detail = "this service asks for keys, and here nobody has one: ask the shop";
        Self::new(StatusCode::FORBIDDEN, ProblemCode::KeysNeeded, detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ProblemCode::NotFound, detail)
    }

    /// 405; the router adds `Allow`.
    pub fn method_not_allowed() -> Self {
        let detail = "the Allow header names the methods that this path knows";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, ProblemCode::MethodNotAllowed, detail)
    }

    /// 408: head or body did not arrive in time.
    pub fn too_slow(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, ProblemCode::TooSlow, detail)
    }

    /// 409: a report contradicts its order, of which these would be applied now.
    pub(super) fn conflict(conflict: Conflict, allowed: Vec<EventKind>) -> Self {
        let (code, detail) = match conflict {
            Conflict::OrderFinished => (
                ProblemCode::OrderFinished,
                "the order was delivered or cancelled; that alone can be taken back, for a while",
            ),
            Conflict::NothingToRevert => {
                (ProblemCode::NothingToRevert, "the order has made no step that could be taken back")
            }
            Conflict::TooLateToRevert => {
                (ProblemCode::TooLateToRevert, "the latest step is too old to be taken back")
            }
            Conflict::ChangedMeanwhile => (
                ProblemCode::ChangedMeanwhile,
                "only the latest step can be taken back, and reverts names another event: look at the order again",
            ),
            Conflict::TimelineFull => (
                ProblemCode::TimelineFull,
                "the order has as many events as it may; only what changes its status is still taken",
            ),
        };
        Self { allowed: Some(allowed), ..Self::new(StatusCode::CONFLICT, code, detail) }
    }

    /// 412: the order is at another position than the sender thought.
    pub(super) fn moved(seq: u32) -> Self {
        let detail = format!("the order is at position {seq} now: look at it again");
        Self::new(StatusCode::PRECONDITION_FAILED, ProblemCode::ChangedMeanwhile, detail)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("a body may have up to {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ProblemCode::TooLarge, detail)
    }

    /// 415.
    pub fn unsupported_media_type(detail: &str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ProblemCode::UnsupportedMediaType, detail)
    }

    /// 422: an idempotency key came back with another body.
    fn key_reused() -> Self {
        let detail = "this Idempotency-Key has placed another order; use a new key for a new order";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, ProblemCode::KeyReused, detail)
    }

    /// 422: the id of a report came back with another body.
    pub(super) fn report_id_reused() -> Self {
        let detail = "this id stands for another report of the order; use a new id for a new report";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, ProblemCode::ReportIdReused, detail)
    }

    /// 429, with `Retry-After`.
    pub(super) fn too_many_streams() -> Self {
        let detail = "this address has half of the places for event streams; close one, or try again later";
        Self::new(StatusCode::TOO_MANY_REQUESTS, ProblemCode::TooManyStreams, detail)
    }

    /// 431.
    pub fn head_too_large() -> Self {
        let detail = "the request line and headers are too long or too many";
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, ProblemCode::HeadTooLarge, detail)
    }

    /// 500; says nothing about the inside.
    pub fn internal() -> Self {
        let detail = "this is our fault; the request id leads to the cause in our logs";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ProblemCode::Internal, detail)
    }

    /// 503, with `Retry-After`.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ProblemCode::Unavailable, detail)
    }

    /// A whole response for a connection on which no request could be read.
    pub(super) fn raw_response(&self, request_id: &RequestId) -> Vec<u8> {
        let body = self.body("", request_id);
        let retry_after =
            if self.passes() { format!("retry-after: {RETRY_AFTER}\r\n") } else { String::new() };
        let head = format!(
            "HTTP/1.1 {}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\nx-request-id: {request_id}\r\n\
             {retry_after}connection: close\r\n\r\n",
            self.status,
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    /// What `WWW-Authenticate` says with it, RFC 6750 section 3.
    pub(super) fn challenge(&self) -> Option<&'static str> {
        match self.code {
            ProblemCode::KeyRequired => Some(r#"Bearer realm="order-tracker""#),
            ProblemCode::KeyNotValid => Some(r#"Bearer realm="order-tracker", error="invalid_token""#),
            _ => None,
        }
    }

    /// Whether the same request may be answered well a little later.
    fn passes(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }

    /// The body as it goes out.
    pub(super) fn body(&self, instance: &str, request_id: &RequestId) -> Vec<u8> {
        let body = self.told(instance, request_id);
        serde_json::to_vec(&body).expect("strings and numbers always serialise")
    }

    /// The same before it is JSON.
    pub(super) fn told(&self, instance: &str, request_id: &RequestId) -> ProblemBody {
        ProblemBody {
            kind: format!("/problems/{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            instance: instance.to_owned(),
            code: self.code,
            errors: self.errors.clone(),
            allowed: self.allowed.clone(),
            request_id: request_id.to_string(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if self.passes() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        if let Some(challenge) = self.challenge() {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<DetailsErrors> for Problem {
    fn from(errors: DetailsErrors) -> Self {
        Self::invalid(errors.0)
    }
}

impl From<ReportErrors> for Problem {
    fn from(errors: ReportErrors) -> Self {
        Self::invalid(errors.0)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            // The loops meet the same trouble and say so once per pause; every request would be a flood.
            tracing::debug!(%error, "a request is not answered");
            Self::unavailable("the database is away; try again shortly")
        } else {
            // A client may ask for the same again and again: `observe` writes it, if there is room.
            Self { cause: Some(LogDetail(error.to_string())), ..Self::internal() }
        }
    }
}

/// The writer has logged the cause already.
impl From<PlaceError> for Problem {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Busy => Self::unavailable("too many orders are waiting; try again shortly"),
            PlaceError::Closed => Self::unavailable("the service is stopping; try again shortly"),
            PlaceError::Unavailable => Self::unavailable("the database is away; try again shortly"),
            PlaceError::TooSlow => Self::unavailable(
                "the order was not written in time and may still be: try again with the same Idempotency-Key",
            ),
            PlaceError::KeyReused => Self::key_reused(),
            PlaceError::Refused(_) => Self::internal(),
        }
    }
}

/// The writer has logged the cause already.
impl From<ReportError> for Problem {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Busy => Self::unavailable("too many reports are waiting; try again shortly"),
            ReportError::Closed => Self::unavailable("the service is stopping; try again shortly"),
            ReportError::Unavailable => {
                Self::unavailable("the database is away; try again shortly, with the same id")
            }
            ReportError::TooSlow => Self::unavailable(
                "the report was not written in time and may still be: try again with the same id",
            ),
            ReportError::Refused(_) => Self::internal(),
        }
    }
}
