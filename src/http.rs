//! What both HTTP clients (cloud API, metadata) share: how a client is built, and how much of an answer is read.

use std::time::Duration;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request or the reading of its answer failed.
    #[error(transparent)]
    Request(#[from] reqwest::Error),
    /// The answer is larger than any honest one.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// How much would have been read.
        limit: usize,
    },
}

/// A client without proxy and redirects: one would send the token, or our trust, elsewhere. It trusts the system's
/// certificate authorities, and cannot be made where there are none.
pub(crate) fn client(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    builder(timeout).build()
}

/// The same for plain HTTP on the link: it trusts no authority at all, so it needs none.
pub(crate) fn plain_client(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    builder(timeout).tls_certs_only([]).build()
}

fn builder(timeout: Duration) -> reqwest::ClientBuilder {
    // Err: somebody installed a provider before, which is as good.
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
