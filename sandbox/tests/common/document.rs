//! Checks of requests and answers against the OpenAPI document of `tests/data`.

use std::sync::OnceLock;

use jsonschema::{Draft, Registry, RegistryBuilder};
use serde_json::{Value, json};

const URI: &str = "urn:hetzner-cloud-openapi";

/// The document.
pub(crate) struct Document {
    root: Value,
    registry: Registry<'static>,
}

/// The document of `tests/data`.
pub(crate) fn document() -> &'static Document {
    static DOCUMENT: OnceLock<Document> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let root: Value = serde_json::from_str(include_str!("../data/openapi-trimmed.json")).expect("valid JSON");
        let registry = Registry::new().draft(Draft::Draft202012).add(URI, root.clone());
        let registry = registry.and_then(RegistryBuilder::prepare).expect("all references lead somewhere");
        Document { root, registry }
    })
}

impl Document {
    /// The path template of the document (`/networks/{id}`), if it has the method.
    pub(crate) fn template(&self, method: &str, path: &str) -> Option<&str> {
        let paths = self.root["paths"].as_object().expect("paths are an object");
        let fits = |template: &str| {
            let (parts, given): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
            parts.len() == given.len()
                && parts.iter().zip(given).all(|(part, given)| part.starts_with('{') || *part == given)
        };
        // A path without parameters has priority over one with parameters.
        let exact = paths.get_key_value(path).into_iter();
        let found = exact
            .chain(paths.iter())
            .find(|(template, item)| fits(template) && item.get(method.to_lowercase()).is_some());
        found.map(|(template, _)| template.as_str())
    }

    /// The problems of an answer; none if it is as documented.
    pub(crate) fn answer_problems(&self, method: &str, template: &str, status: u16, body: &str) -> Vec<String> {
        let pointer = format!("/paths/{}/{}/responses", escape(template), method.to_lowercase());
        let Some(responses) = self.root.pointer(&pointer) else { return vec![format!("{pointer} is not documented")] };
        let (exact, class) = (status.to_string(), format!("{}XX", status / 100));
        let Some(key) = [exact, class].into_iter().find(|key| responses.get(key).is_some()) else {
            return vec![format!("status {status} is not documented")];
        };
        // A documented answer may itself be a reference.
        let at = match responses[&key]["$ref"].as_str() {
            Some(reference) => reference.trim_start_matches('#').to_owned(),
            None => format!("{pointer}/{key}"),
        };
        self.problems(&format!("{at}/content/application~1json/schema"), body)
    }

    /// The problems of a request's body; none if it is as documented.
    pub(crate) fn request_problems(&self, method: &str, template: &str, body: &str) -> Vec<String> {
        let operation = format!("/paths/{}/{}", escape(template), method.to_lowercase());
        self.problems(&format!("{operation}/requestBody/content/application~1json/schema"), body)
    }

    fn problems(&self, pointer: &str, body: &str) -> Vec<String> {
        match (self.root.pointer(pointer), body.is_empty()) {
            (None, true) => return Vec::new(),
            (None, false) => return vec![format!("there should be no body, but there is {body}")],
            (Some(_), true) => return vec!["there should be a body".into()],
            (Some(_), false) => {}
        }
        let body: Value = match serde_json::from_str(body) {
            Ok(body) => body,
            Err(error) => return vec![format!("not JSON ({error}): {body}")],
        };
        let schema = json!({ "$ref": format!("{URI}#{}", pointer.replace('{', "%7B").replace('}', "%7D")) });
        let options = jsonschema::options().with_draft(Draft::Draft202012).with_registry(&self.registry);
        let validator = options.should_validate_formats(true).build(&schema).expect("the document's schemas are valid");
        let problem = |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
        validator.iter_errors(&body).map(problem).collect()
    }
}

/// A key in the notation of a JSON pointer (RFC 6901).
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
