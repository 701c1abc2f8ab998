//! Injected faults, as clients observe them.

use std::time::{Duration, Instant};

use reqwest::Method;
use sandbox::cloud::{Fault, Injection, Matching, Settings, Times};

use crate::common::served::Got;
use crate::{World, body, instant, route};

const DEFAULT: &str = "0.0.0.0/0 via 10.0.0.2";

impl World {
    fn next(&self, fault: Fault) {
        self.cloud().inject(Injection { matching: Matching::any(), fault, times: Times::Next(1) });
    }

    /// Adds the default route. The answer is not checked.
    async fn add(&self) -> reqwest::Result<Got> {
        self.served.try_send(&Method::POST, &self.network_action("add_route"), Some(body(DEFAULT).to_string())).await
    }

    fn is_added(&self) -> bool {
        let routes = self.cloud().routes(self.network);
        assert!(routes.is_empty() || routes == [route(DEFAULT)], "{routes:?}");
        !routes.is_empty()
    }
}

#[tokio::test]
async fn an_injected_status_has_the_apis_body_or_a_proxys_page() {
    let world = World::new(instant());
    for (code, error) in [
        (409, "conflict"),
        (423, "locked"),
        (429, "rate_limit_exceeded"),
        (500, "server_error"),
        (502, "bad_gateway"),
        (503, "unavailable"),
        (504, "timeout"),
    ] {
        world.next(Fault::Status { code, json: true });
        let got = world.add().await.expect("an answer");
        assert_eq!((got.error(), got.header("content-type")), ((code, error.into()), "application/json"));
        world.next(Fault::Status { code, json: false });
        let got = world.add().await.expect("an answer");
        assert_eq!((got.status, got.header("content-type")), (code, "text/html"));
        assert!(got.text.starts_with("<html>"), "{}", got.text);
    }
    assert!(!world.is_added());
}

#[tokio::test]
async fn an_injected_error_can_have_any_code() {
    let world = World::new(instant());
    world.next(Fault::Api { status: 422, code: "service_error".into(), message: "not today".into() });
    let got = world.add().await.expect("an answer");
    assert_eq!(got.refusal(), (422, "service_error".into(), "not today".into()));
    world.next(Fault::Maintenance);
    assert_eq!(world.add().await.expect("an answer").error(), (403, "maintenance".into()));
    assert!(!world.is_added());
}

#[tokio::test]
async fn an_injected_rate_limit_does_not_change_the_bucket() {
    let world = World::new(instant());
    world.next(Fault::RateLimited);
    let got = world.add().await.expect("an answer");
    assert_eq!((got.error(), got.header("ratelimit-remaining")), ((429, "rate_limit_exceeded".into()), "0"));
    assert_eq!(world.served.get("/networks").await.header("ratelimit-remaining"), "3599");
}

#[tokio::test]
async fn a_time_out_keeps_the_connection_open_with_and_without_the_change() {
    for applied in [false, true] {
        let world = World::new(instant());
        let hold = Duration::from_millis(150);
        world.next(Fault::Timeout { applied, hold });
        let start = Instant::now();
        let error = world.add().await.expect_err("no answer");
        assert!(start.elapsed() >= hold && error.status().is_none(), "{error:?}");
        assert_eq!(world.is_added(), applied);
        assert_eq!(world.cloud().requests()[0].status, None);
        assert_eq!(world.served.get("/networks").await.status, 200, "the next request is answered");
    }
}

#[tokio::test]
async fn a_change_takes_effect_although_the_client_has_disconnected() {
    let world = World::new(instant());
    world.next(Fault::Timeout { applied: true, hold: Duration::from_secs(60) });
    let made = async {
        while !world.is_added() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        answer = world.add() => panic!("{answer:?}"),
        made = tokio::time::timeout(Duration::from_secs(20), made) => made.expect("it is made while the client waits"),
    }
    // The client has hung up by now.
    assert!(world.is_added());
}

#[tokio::test]
async fn a_reset_resets_the_connection_with_and_without_the_change() {
    for applied in [false, true] {
        let world = World::new(instant());
        world.next(Fault::Reset { applied });
        let error = world.add().await.expect_err("no answer");
        let chain: Vec<String> = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
            .map(ToString::to_string)
            .collect();
        assert!(chain.iter().any(|error| error.contains("Connection reset by peer")), "{chain:?}");
        assert_eq!(world.is_added(), applied);
    }
}

#[tokio::test]
async fn a_slow_body_arrives_slowly_and_completely() {
    let world = World::new(instant());
    let per_byte = Duration::from_millis(1);
    world.next(Fault::SlowBody { per_byte });
    let start = Instant::now();
    let got = world.served.get(&format!("/networks/{}", world.network)).await;
    assert_eq!(got.json()["network"]["name"], "private");
    let length = u32::try_from(got.text.len()).expect("a short answer");
    assert!(start.elapsed() >= per_byte * length, "{:?} for {length} bytes", start.elapsed());
}

#[tokio::test]
async fn truncated_json_is_half_of_the_answer_and_the_request_takes_effect() {
    let world = World::new(instant());
    world.next(Fault::TruncatedJson);
    let got = world.add().await.expect("an answer");
    assert_eq!((got.status, got.header("content-type")), (201, "application/json"));
    assert!(got.text.starts_with('{') && serde_json::from_str::<serde_json::Value>(&got.text).is_err(), "{}", got.text);
    assert!(world.is_added());
}

#[tokio::test]
async fn faults_apply_to_the_selected_requests_as_often_as_requested() {
    let world = World::new(instant());
    let fault = Fault::Status { code: 500, json: true };
    let matching = Matching::post("add_route");
    world.cloud().inject(Injection { matching, fault, times: Times::UntilCleared });
    for _ in 0..3 {
        assert_eq!(world.add().await.expect("an answer").status, 500);
        assert_eq!(world.served.get("/networks").await.status, 200);
    }
    world.cloud().clear_faults();
    assert_eq!(world.add().await.expect("an answer").status, 201);
}

#[tokio::test]
async fn a_cloud_that_is_no_longer_served_closes_its_connections() {
    let world = World::new(Settings::default());
    let mut stream = tokio::net::TcpStream::connect(world.served.address).await.expect("a connection");
    // Answered, and kept open.
    let request = b"GET /v1/nothing HTTP/1.1\r\nHost: api\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.expect("the server reads it");
    let mut buffer = [0; 4096];
    assert!(tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await.expect("an answer") > 0);
    let address = world.served.address;
    drop(world);
    let closed = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer);
    let closed = tokio::time::timeout(Duration::from_secs(5), closed).await.expect("the connection ends");
    assert_eq!(closed.expect("in good order"), 0);
    let refused = tokio::net::TcpStream::connect(address).await.expect_err("nothing listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}
