//! A cloud on a loopback socket, and a client that checks every answer against the OpenAPI document.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use sandbox::cloud::{Cloud, Settings};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::document;

/// A cloud that is served on a loopback socket.
pub(crate) struct Served {
    pub(crate) cloud: Cloud,
    pub(crate) address: SocketAddr,
    /// The client's token; `None` omits the header.
    pub(crate) token: Option<String>,
    http: Client,
    server: JoinHandle<std::io::Result<()>>,
    checked: Mutex<BTreeSet<(String, String, u16)>>,
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The status and the error code: `(409, "conflict")`.
    pub(crate) fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap_or_default().into())
    }

    /// The status, the error code and the message.
    pub(crate) fn refusal(&self) -> (u16, String, String) {
        let (status, code) = self.error();
        (status, code, self.json()["error"]["message"].as_str().unwrap_or_default().into())
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are text"))
    }
}

impl Served {
    pub(crate) fn start(cloud: Cloud) -> Self {
        // The client needs a TLS provider even for plain HTTP.
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let address = listener.local_addr().expect("it is bound");
        let serving = cloud.clone();
        let server = tokio::spawn(async move { serving.serve(listener).await });
        let http = Client::builder().timeout(Duration::from_secs(20)).no_proxy().build().expect("a client");
        let token = Some(Settings::default().token);
        Self { cloud, address, token, http, server, checked: Mutex::default() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Got {
        self.send(Method::DELETE, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Got {
        self.send(Method::POST, path, Some(body.to_string())).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Got {
        self.send(Method::PUT, path, Some(body.to_string())).await
    }

    /// Sends a request. The answer must be as documented, and the request too if it is accepted.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<String>) -> Got {
        let got = self.try_send(&method, path, body.clone()).await.expect("an answer");
        let plain = path.split('?').next().unwrap_or_default();
        if let Some(template) = document().template(method.as_str(), plain) {
            let problems = document().answer_problems(method.as_str(), template, got.status, &got.text);
            assert!(problems.is_empty(), "{method} {path} -> {}: {problems:#?}\n{}", got.status, got.text);
            if got.status < 300 {
                let body = body.unwrap_or_default();
                let problems = document().request_problems(method.as_str(), template, &body);
                assert!(problems.is_empty(), "{method} {path} {body}: {problems:#?}");
            }
            self.checked.lock().expect("no test panicked here").insert((
                method.to_string(),
                template.into(),
                got.status,
            ));
        }
        got
    }

    /// Sends a request without checks.
    pub(crate) async fn try_send(&self, method: &Method, path: &str, body: Option<String>) -> reqwest::Result<Got> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.url()));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Got { status, headers, text: response.text().await? })
    }

    /// The checked answers: method, path, status.
    pub(crate) fn checked(&self) -> BTreeSet<(String, String, u16)> {
        self.checked.lock().expect("no test panicked here").clone()
    }

    /// The action of an accepted request, once it has ended.
    pub(crate) async fn end_of(&self, accepted: &Got) -> Value {
        assert_eq!(accepted.status, 201, "{}", accepted.text);
        let id = accepted.json()["action"]["id"].as_u64().expect("an action has an id");
        for _ in 0..1000 {
            let action = self.get(&format!("/actions/{id}")).await.json()["action"].clone();
            if action["status"] != "running" {
                return action;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("action {id} does not end");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}
