//! Parameters that are given more than once, wherever the document knows some.

use serde_json::Value;

use super::Api;

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_parameter_that_is_repeated_is_named() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let document = api.get("/openapi.json").await.json();
    let mut tried = Vec::new();
    for (route, methods) in document["paths"].as_object().expect("paths") {
        let parameters = methods["get"]["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().expect("a name"))
            .collect();
        let path = route.replace("{id}", &id);
        let expected = |names: &[&str]| {
            let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            names.sort_unstable();
            ("validation-error".to_owned(), names)
        };
        for name in &names {
            let answer = api.get(&format!("{path}?{name}=1&{name}=2")).await;
            assert_eq!(answer.problem(400), expected(&[name]), "{path} {name}");
            assert_eq!(answer.json()["errors"][0]["code"], "repeated", "{path} {name}");
        }
        if !names.is_empty() {
            let all: Vec<String> = names.iter().map(|name| format!("{name}=&{name}=")).collect();
            // What nobody knows may be there as often as it likes.
            let answer = api.get(&format!("{path}?colour=1&colour=2&{}", all.join("&"))).await;
            assert_eq!(answer.problem(400), expected(&names), "{path}");
        }
        tried.extend(names);
    }
    tried.sort_unstable();
    assert_eq!(tried, ["after", "after", "cursor", "event", "include", "limit", "limit", "status", "wait"]);
    let colours = api.get(&format!("/orders/{id}?colour=1&colour=2")).await;
    assert_eq!((colours.status.as_u16(), &colours.json()["order"]["order_id"]), (200, &Value::String(id)));
}
