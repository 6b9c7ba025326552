//! The OpenAPI document, kept beside this file and served as it is.

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::Body;

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn document() -> Response<Body> {
    let mut response = Response::new(Body::new(Bytes::from_static(DOCUMENT.as_bytes())));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::super::path::Route;
    use super::*;

    #[test]
    fn the_document_describes_every_route_with_its_methods_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut described = 0;
        for (path, operations) in document["paths"].as_object().unwrap() {
            let example = path.replace("{cache}", "default").replace("{key}", "key");
            let route = Route::parse(&example).unwrap();
            let mut methods: Vec<String> = operations
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| *key != "parameters")
                .map(|key| key.to_uppercase())
                .collect();
            // HEAD is what GET is, without the body.
            if methods.contains(&"GET".to_owned()) && !methods.contains(&"HEAD".to_owned()) {
                methods.push("HEAD".to_owned());
            }
            let mut allowed: Vec<&str> = route.allowed().split(", ").collect();
            methods.sort();
            allowed.sort_unstable();
            assert_eq!(methods, allowed, "{path}");
            described += 1;
        }
        assert_eq!(described, 13);
    }
}
