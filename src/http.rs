//! What both HTTP clients (cloud API, metadata) share: how a client is built, and the limit on the size of an answer.

use std::time::Duration;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request could not be sent, or its answer could not be read.
    #[error(transparent)]
    Request(#[from] reqwest::Error),
    /// The answer is larger than any valid one.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// A client without proxy and redirects, so that the token is sent to the configured server only. It trusts the
/// system's certificate authorities; without any it cannot be created.
pub(crate) fn client(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    builder(timeout).build()
}

/// A client for plain HTTP. It needs no certificate authorities and trusts none. A server that does not even accept a
/// connection within `connect_timeout` is given up earlier than one that takes its time to answer.
pub(crate) fn plain_client(timeout: Duration, connect_timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    builder(timeout).connect_timeout(connect_timeout).tls_certs_only([]).build()
}

fn builder(timeout: Duration) -> reqwest::ClientBuilder {
    // Err: a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout.min(Duration::from_secs(5)))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("bastiond/", env!("CARGO_PKG_VERSION")))
}

/// The body, or an error as soon as it is larger than `limit` bytes.
pub(crate) async fn read_limited(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Err(Error::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
