//! How to reach the service.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

/// The service itself.
pub const DEFAULT_API_URL: &str = "https://g.api.mega.co.nz/";

/// Settings of one [`Api`](crate::Api).
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Where `/cs`, `/sc` and `/wsc` are; a trailing slash does not matter.
    pub base_url: Url,
    /// One more root certificate to trust, PEM.
    pub ca_cert: Option<PathBuf>,
    /// A proxy for everything (`http://host:port`); `None` takes `HTTPS_PROXY`, `ALL_PROXY` ... from the
    /// environment, an empty text none at all.
    pub proxy: Option<String>,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// How long a silent peer is waited for, and how long a busy one is asked again.
    pub timeout: Duration,
    /// Whether storage servers are asked for https (`ssl:2`); their payload is encrypted either way.
    pub transfer_tls: bool,
    /// Whether storage servers may be asked for the parts of striped files (CloudRAID, `protocol/04` section 4).
    pub cloudraid: bool,
    /// How many requests the API gets in a thousand seconds; `None` is without limit.
    pub calls_per_1000_s: Option<u64>,
    /// Our `i`: 10 characters echoed in the packets our commands cause.
    pub client_id: String,
}

impl Default for ApiConfig {
    #[expect(
        clippy::expect_used,
        reason = "the constant is a URL, as the test below shows"
    )]
    fn default() -> Self {
        Self {
            base_url: Url::parse(DEFAULT_API_URL).expect("a constant URL"),
            ca_cert: None,
            proxy: None,
            user_agent: concat!("megamount/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: Duration::from_secs(60),
            transfer_tls: true,
            cloudraid: false,
            calls_per_1000_s: None,
            client_id: "megamount0".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_reaches_the_service() {
        let config = ApiConfig::default();
        assert_eq!(config.base_url.host_str(), Some("g.api.mega.co.nz"));
        assert_eq!(config.client_id.len(), 10);
    }
}
