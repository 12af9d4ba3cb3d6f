//! What stands in the query of an address.

use std::collections::BTreeSet;

use axum::{
    extract::{FromRequestParts, Query},
    http::{Uri, request},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::super::Problem;
use crate::order::{FieldCode, FieldError};

/// The parameters of a request, each given once at most; unknown ones are ignored.
pub(in crate::http) struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Problem> {
        let read = Query::try_from_uri(&parts.uri);
        let Query(parameters) = read.map_err(|error| match repeated::<T>(&parts.uri) {
            errors if errors.is_empty() => Problem::malformed(error.body_text()),
            errors => Problem::invalid(errors),
        })?;
        Ok(Self(parameters))
    }
}

/// The parameters that were given more than once, where that matters.
fn repeated<T: DeserializeOwned>(uri: &Uri) -> Vec<FieldError> {
    let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else { return Vec::new() };
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&str> =
        given.iter().map(|(name, _)| name.as_str()).filter(|name| !seen.insert(*name)).collect();
    let matters = |name: &&str| {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        format!("/?{name}=&{name}=").parse().is_ok_and(|uri| Query::<T>::try_from_uri(&uri).is_err())
    };
    let error = |name| FieldError::new(name, FieldCode::Repeated, "must be given once");
    twice.into_iter().filter(matters).map(error).collect()
}
