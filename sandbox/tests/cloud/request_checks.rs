//! Path, rate limit, token and method, which are checked before every endpoint; compared by bytes where the real ones
//! are known.

use std::time::Duration;

use reqwest::Method;
use sandbox::cloud::{RateLimit, ReadOnlyAnswer, Settings};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Clock, World, body};

/// Sends bytes, and reads until the server closes the connection.
async fn raw(world: &World, request: &str) -> String {
    let mut stream = TcpStream::connect(world.served.address).await.expect("a connection");
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).await.expect("the server reads it");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("UTF-8 text");
    text.replace("\r\n", "\n")
}

#[tokio::test]
async fn a_request_without_a_token_gets_the_bytes_of_the_real_api() {
    let world = World::new(Settings::default());
    let text = raw(&world, "GET /v1/servers HTTP/1.1\nHost: api\nConnection: close\n\n").await;
    let (head, chunks) = text.split_once("\n\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 401 Unauthorized\n"), "{head}");
    assert!(head.contains("\ncontent-type: application/json\n"), "{head}");
    assert!(head.contains("\ntransfer-encoding: chunked\n"), "{head}");
    let expected = r#"{"error":{"code":"unauthorized","details":null,"message":"token is required"}}"#;
    assert_eq!(chunks, format!("{:X}\n{expected}\n0\n\n", expected.len()));
}

#[tokio::test]
async fn an_unknown_token_gets_another_error_than_a_missing_one() {
    let mut world = World::new(Settings::default());
    world.served.token = Some("wrong".into());
    let expected =
        r#"{"error":{"code":"unauthorized","details":null,"message":"the token you have provided is invalid"}}"#;
    let got = world.served.get("/networks").await;
    assert_eq!((got.status, got.text.as_str()), (401, expected));
}

#[tokio::test]
async fn an_unknown_path_is_reported_before_the_token_is_checked() {
    let world = World::new(Settings::default());
    for path in ["/v1/nothing", "/v1/networks/", "/v1/servers/1/actions/fly", "/"] {
        let text = raw(&world, &format!("GET {path} HTTP/1.1\nHost: api\nConnection: close\n\n")).await;
        let (head, body) = text.split_once("\n\n").expect("head and body");
        assert!(head.starts_with("HTTP/1.1 404 Not Found\n"), "{path}: {head}");
        assert!(head.contains("\ncontent-type: application/json; charset=UTF-8\n"), "{head}");
        assert!(head.contains("\ncontent-length: 103\n"), "{head}");
        let expected = r#"{
  "error": {
    "message": "api route not found",
    "code": "not_found",
    "details": null
  }
}"#;
        assert_eq!(body, expected, "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_reported_after_the_token_was_checked() {
    let mut world = World::new(Settings::default());
    let sent = world.served.send(Method::PATCH, "/networks", None).await;
    assert_eq!(sent.error(), (405, "method_not_allowed".into()));
    assert_eq!(world.served.delete("/servers").await.error(), (405, "method_not_allowed".into()));
    world.served.token = None;
    assert_eq!(world.served.delete("/servers").await.error(), (401, "unauthorized".into()));
}

#[tokio::test]
async fn a_read_only_token_can_read_and_is_refused_with_either_error_when_it_writes() {
    let mut world = World::new(Settings::default());
    world.served.token = Some(Settings::default().read_only_token);
    assert_eq!(world.served.get("/networks").await.status, 200);
    let add = world.network_action("add_route");
    let default = body("0.0.0.0/0 via 10.0.0.2");
    assert_eq!(world.served.post(&add, default.clone()).await.error(), (401, "token_readonly".into()));
    world.cloud().update_settings(|settings| settings.read_only_answer = ReadOnlyAnswer::Forbidden403);
    assert_eq!(world.served.post(&add, default).await.error(), (403, "forbidden".into()));
    assert_eq!(world.cloud().routes(world.network), []);
}

#[tokio::test]
async fn every_answer_has_the_headers_of_the_real_api() {
    let clock = Clock::new();
    let mut world = World::of(clock.cloud(Settings::default()));
    let mut remaining = 3600;
    for (token, path, status) in [
        (Some(Settings::default().token), "/networks", 200),
        (None, "/networks", 401),
        (None, "/nothing", 404),
        (Some(Settings::default().token), "/networks/1", 404),
    ] {
        world.served.token = token;
        let got = world.served.get(path).await;
        remaining -= 1;
        assert_eq!(got.status, status, "{path}");
        assert_eq!(got.header("ratelimit-limit"), "3600");
        assert_eq!(got.header("ratelimit-remaining"), remaining.to_string(), "those without a token count as well");
        assert_eq!(got.header("ratelimit-reset"), (1_700_003_600 - remaining).to_string());
        assert_eq!(got.header("strict-transport-security"), "max-age=15724800; includeSubDomains");
        assert_eq!(got.header("access-control-allow-origin"), "*");
        assert_eq!(got.header("access-control-allow-credentials"), "true");
        let id = got.header("x-correlation-id");
        assert!(id.len() == 16 && id.chars().all(|digit| digit.is_ascii_hexdigit()), "{id}");
        assert!(!got.header("date").is_empty());
    }
}

#[tokio::test]
async fn an_exhausted_rate_limit_allows_one_request_after_a_second() {
    let clock = Clock::new();
    let rate_limit = RateLimit { burst: 3600, refill_per_second: 1 };
    let mut world = World::of(clock.cloud(Settings { rate_limit, ..Settings::default() }));
    world.cloud().drain_rate_limit_to(1);
    assert_eq!(world.served.get("/networks").await.status, 200);
    world.served.token = None;
    let got = world.served.get("/networks").await;
    let expected = r#"{
  "error": {
    "message": "limit of 3600 requests per hour reached",
    "code": "rate_limit_exceeded",
    "details": null
  }
}"#;
    assert_eq!((got.status, got.text.as_str()), (429, expected));
    assert_eq!((got.header("ratelimit-remaining"), got.header("ratelimit-reset")), ("0", "1700003600"));
    clock.step(Duration::from_secs(1));
    world.served.token = Some(Settings::default().token);
    assert_eq!(world.served.get("/networks").await.status, 200);
    assert_eq!(world.served.get("/networks").await.status, 429);
}

#[tokio::test]
async fn a_new_rate_limit_starts_with_a_full_bucket() {
    let world = World::of(Clock::new().cloud(Settings::default()));
    world.cloud().update_settings(|settings| settings.rate_limit = RateLimit { burst: 2, refill_per_second: 0 });
    let statuses =
        [world.served.get("/networks").await, world.served.get("/networks").await, world.served.get("/networks").await];
    assert_eq!(statuses.map(|got| got.status), [200, 200, 429]);
}

#[tokio::test]
async fn removed_functions_are_answered_with_410() {
    let world = World::new(Settings::default());
    for path in ["/datacenters", "/datacenters/1", "/actions"] {
        let got = world.served.get(path).await;
        assert_eq!(got.error(), (410, "deprecated_api_endpoint".into()), "{path}");
        let announcement = got.json()["error"]["details"]["announcement"].clone();
        assert!(announcement.as_str().is_some_and(|url| url.starts_with("https://docs.hetzner.cloud/changelog#")));
    }
}

#[tokio::test]
async fn every_request_is_recorded() {
    let world = World::new(Settings::default());
    world.served.get("/networks?name=private").await;
    world.served.post(&world.network_action("add_route"), json!({ "destination": 1 })).await;
    let records: Vec<_> = world
        .cloud()
        .requests()
        .into_iter()
        .map(|request| (request.method, request.path, request.query, request.status, request.body))
        .collect();
    let path = format!("/v1{}", world.network_action("add_route"));
    let expected = [
        ("GET".into(), "/v1/networks".into(), Some("name=private".into()), Some(200), String::new()),
        ("POST".into(), path, None, Some(422), r#"{"destination":1}"#.into()),
    ];
    assert_eq!(records, expected);
    world.cloud().forget_requests();
    assert_eq!(world.cloud().requests(), []);
}
