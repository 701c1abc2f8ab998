//! The cloud's API as used by a program in the bastion.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use reqwest::Method;
use sandbox::world::World;
use serde_json::{Value, json};

use crate::TIMEOUT;

/// A client in the bastion's namespace.
pub(crate) struct Api<'w> {
    world: &'w World,
}

impl<'w> Api<'w> {
    pub(crate) fn of(world: &'w World) -> Self {
        // The client needs a TLS provider even for plain HTTP. An error means that another test has installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { world }
    }

    /// Sends a request, checks the status, and returns the body.
    pub(crate) fn call(&self, method: Method, path: &str, body: Option<&Value>, status: u16) -> Value {
        let url = format!("{}{path}", self.world.api_endpoint());
        let answer = self.world.bastion().run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
                let mut request = client.request(method, &url).bearer_auth(self.world.token());
                if let Some(body) = body {
                    request = request.json(body);
                }
                let response = request.send().await?;
                let status = response.status().as_u16();
                Ok::<_, reqwest::Error>((status, response.json::<Value>().await?))
            })
        });
        let (found, body) = answer.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        assert_eq!(found, status, "{url}: {body}");
        body
    }

    /// Requests a change of the private network's routes and returns the id of the action.
    pub(crate) fn change_route(&self, what: &str, destination: Ipv4Net, gateway: Ipv4Addr) -> u64 {
        let path = format!("/networks/{}/actions/{what}", self.world.private_network_id());
        let body = json!({"destination": destination, "gateway": gateway});
        let answer = self.call(Method::POST, &path, Some(&body), 201);
        answer["action"]["id"].as_u64().expect("an action has an id")
    }

    /// Waits until an action succeeds.
    pub(crate) fn wait(&self, action: u64) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let answer = self.call(Method::GET, &format!("/actions/{action}"), None, 200);
            match answer["action"]["status"].as_str() {
                Some("success") => return,
                Some("running") if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                _ => panic!("the action failed: {answer}"),
            }
        }
    }

    /// Adds a route and waits until its action has ended and the gateway has applied it.
    pub(crate) fn add_route(&self, destination: Ipv4Net, gateway: Ipv4Addr) {
        self.wait(self.change_route("add_route", destination, gateway));
        self.world
            .gateway(self.world.private_network_id())
            .wait_for_route(destination, Some(gateway), TIMEOUT)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Deletes a route and waits until the gateway has removed it.
    pub(crate) fn delete_route(&self, destination: Ipv4Net, gateway: Ipv4Addr) {
        self.wait(self.change_route("delete_route", destination, gateway));
        self.world
            .gateway(self.world.private_network_id())
            .wait_for_route(destination, None, TIMEOUT)
            .unwrap_or_else(|error| panic!("{error}"));
    }
}
