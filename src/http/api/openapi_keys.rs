//! What the API document says more where keys are asked for: whose key each operation needs, and what is kept from whom.

use serde_json::{Value, json};

use super::{
    super::routes::{self, Need},
    openapi::{common_headers, problem},
};
use crate::order::Role;

/// The name of the scheme.
const SCHEME: &str = "key";

/// Adds all that.
pub(super) fn ask_for_keys(document: &mut Value) {
    document["components"]["securitySchemes"][SCHEME] = json!({
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "otk_, 30 letters and digits, _ and 6 more",
        "description": "A key of this service; what it may do hangs on its role.",
    });
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            let method = method.to_uppercase().parse().unwrap_or_default();
            guard(operation, routes::need(&method, path));
        }
    }
    let schemas = &mut document["components"]["schemas"];
    for (field, whose) in [("customer_name", "names"), ("address", "addresses")] {
        let field = &mut schemas["OrderDetails"]["properties"][field];
        field["type"] = json!(["string", "null"]);
        tell(field, &format!("Null for keys whose role has no need of {whose}."));
    }
    let source = &mut schemas["NewReport"]["properties"]["source"];
    tell(source, "Ignored here: the source is the role of the key.");
    let readiness = &mut schemas["Readiness"];
    if let Some(required) = readiness["required"].as_array_mut() {
        required.retain(|name| name != "degraded");
    }
    for field in ["reason", "degraded"] {
        tell(&mut readiness["properties"][field], &format!("Told to keys of {} only.", roles(may_know_more)));
    }
}

fn may_know_more(role: Role) -> bool {
    role.may(routes::TOLD_MORE)
}

fn guard(operation: &mut Value, need: Need) {
    let named = |may: &dyn Fn(Role) -> bool| -> Vec<&str> {
        Role::ALL.into_iter().filter(|role| may(*role)).map(Role::as_str).collect()
    };
    match need {
        Need::Nothing | Need::Page(_) => operation["security"] = json!([]),
        Need::Optional => operation["security"] = json!([{}, {SCHEME: named(&may_know_more)}]),
        Need::Key(action) => {
            operation["security"] = json!([{SCHEME: named(&|role| role.may(action))}]);
            tell(operation, &format!("For keys of {}.", roles(|role| role.may(action))));
            operation["responses"]["401"] = challenge();
            operation["responses"]["403"] = refusal();
        }
    }
}

fn challenge() -> Value {
    let mut response = problem("401", "No key, or one that is mistyped, unknown or revoked");
    response["headers"]["WWW-Authenticate"] =
        json!({"description": "`Bearer`, RFC 6750", "schema": {"type": "string", "pattern": "^Bearer "}});
    common_headers(&mut response);
    response
}

fn refusal() -> Value {
    let mut response = problem("403", "The key's role may not do that");
    common_headers(&mut response);
    response
}

/// The roles that may, as a sentence lists them.
fn roles(may: impl Fn(Role) -> bool) -> String {
    let names: Vec<&str> = Role::ALL.into_iter().filter(|role| may(*role)).map(Role::as_str).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}

/// Adds a sentence to what is said of it.
fn tell(described: &mut Value, sentence: &str) {
    let before = described["description"].as_str().unwrap_or_default();
    let glue = if before.is_empty() { "" } else { "\n\n" };
    described["description"] = format!("{before}{glue}{sentence}").into();
}
