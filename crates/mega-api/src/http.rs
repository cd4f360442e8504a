//! The two HTTP clients, and sending with inactivity limits instead of total ones.
//!
//! Owns TLS, proxy and connection settings. Addresses carry secrets (session ids, storage paths), so
//! nothing here prints one and errors have theirs removed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Client, ClientBuilder, Proxy, RequestBuilder, Response};

use crate::config::ApiConfig;
use crate::error::ApiError;

/// How long a connection may take to come about (`protocol/01` section 7).
const CONNECT: Duration = Duration::from_secs(12);
/// What a proxy may be.
const PROXIES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
/// Idle connections are dropped before servers and NATs do it silently.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// Keeps long polls alive through NATs and notices dead peers.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Storage connections kept for the next piece, per host.
const STORAGE_POOL: usize = 64;

pub(crate) struct Http {
    /// Without a trailing slash.
    base: String,
    pub(crate) api: Client,
    pub(crate) storage: Client,
}

impl Http {
    pub(crate) fn new(config: &ApiConfig) -> Result<Self, ApiError> {
        let base = config.base_url.as_str().trim_end_matches('/').to_owned();
        let is_http = match config.base_url.scheme() {
            "http" => true,
            "https" => false,
            other => {
                return Err(ApiError::Config(format!(
                    "the API URL has scheme {other}, not https"
                )));
            }
        };
        // A process-wide choice; a second call changes nothing.
        drop(rustls::crypto::ring::default_provider().install_default());
        let certificates = certificates(config)?;
        // Plain http to a plain http service: a machine without root certificates will do.
        let no_roots = is_http && certificates.is_empty();
        let common = || -> Result<ClientBuilder, ApiError> {
            let mut builder = Client::builder()
                .user_agent(&config.user_agent)
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT.min(config.timeout))
                .pool_idle_timeout(POOL_IDLE)
                .tcp_nodelay(true)
                .tcp_keepalive(KEEPALIVE);
            builder = match config.proxy.as_deref() {
                None => builder,
                Some("") => builder.no_proxy(),
                // The text may hold a password, so it is not repeated.
                Some(proxy) => builder.proxy(named_proxy(proxy)?),
            };
            Ok(if !certificates.is_empty() {
                builder.tls_certs_merge(certificates.clone())
            } else if no_roots {
                builder.tls_certs_only([])
            } else {
                builder
            })
        };
        let failed = |error: reqwest::Error| {
            ApiError::Config(format!(
                "TLS cannot be set up: {}",
                crate::error::NetworkError::new(error)
            ))
        };
        let api = common()?.build().map_err(failed)?;
        // HTTP/1.1 with a connection per stream is what moves bulk data fastest; ciphertext does not compress.
        let storage = common()?
            .http1_only()
            .no_gzip()
            .pool_max_idle_per_host(STORAGE_POOL)
            .build()
            .map_err(failed)?;
        Ok(Self { base, api, storage })
    }

    /// The base URL, which holds no secret.
    pub(crate) fn origin(&self) -> &str {
        &self.base
    }

    /// Whether the service is spoken to in https.
    pub(crate) fn is_https(&self) -> bool {
        self.base.starts_with("https:")
    }
}

/// The proxy of `--proxy`. One of a kind that the library does not know would be passed over, and everything sent
/// without it.
fn named_proxy(text: &str) -> Result<Proxy, ApiError> {
    let (scheme, _) = text.split_once("://").unwrap_or(("http", text));
    let is_known = PROXIES.contains(&scheme.to_ascii_lowercase().as_str());
    let proxy = Proxy::all(text).ok().filter(|_| is_known);
    proxy.ok_or_else(|| {
        ApiError::Config(
            "the proxy is not an address such as http://host:3128 or socks5h://host:1080 (--proxy)"
                .to_owned(),
        )
    })
}

/// What is done with `--proxy`, for the proxies of the environment, which count where
/// [`ApiConfig::proxy`](crate::ApiConfig::proxy) is `None`; `get` answers what a variable is. The library takes for
/// each kind of address the first variable that is there, and `ALL_PROXY` where that says nothing.
///
/// # Errors
/// [`ApiError::Config`] for one that would be passed over, so that everything would be sent without it.
pub fn check_proxies(get: impl Fn(&str) -> Option<String>) -> Result<(), ApiError> {
    let first = |names: [&'static str; 2]| {
        let found = names.into_iter().find_map(|name| Some((name, get(name)?)));
        found.filter(|(_, value)| !value.is_empty())
    };
    let value = |found: &Option<(&str, String)>| {
        let value = found.as_ref().map(|(_, value)| value.clone());
        value.unwrap_or_default()
    };
    let everywhere = get("NO_PROXY").or_else(|| get("no_proxy"));
    if everywhere.is_some_and(|list| list.split(',').any(|entry| entry.trim() == "*")) {
        return Ok(());
    }
    let all = first(["ALL_PROXY", "all_proxy"]);
    for (names, address) in [
        (["HTTPS_PROXY", "https_proxy"], "https://mega.example/"),
        (["HTTP_PROXY", "http_proxy"], "http://mega.example/"),
    ] {
        let own = first(names);
        let Some((name, _)) = own.as_ref().or(all.as_ref()) else {
            continue;
        };
        // What it makes of the value, its own reader says best.
        let matcher = Matcher::builder()
            .all(value(&all))
            .https(value(&own))
            .http(value(&own))
            .build();
        let is_used = address
            .parse()
            .is_ok_and(|address| matcher.intercept(&address).is_some());
        if !is_used {
            return Err(ApiError::Config(format!(
                "the proxy in the environment variable {name} is not an address such as http://host:3128 or \
                 socks5h://host:1080. Correct it, or name the proxy with --proxy; --proxy '' is none"
            )));
        }
    }
    Ok(())
}

/// The further certificates to trust; none without the option.
fn certificates(config: &ApiConfig) -> Result<Vec<reqwest::Certificate>, ApiError> {
    let Some(path) = &config.ca_cert else {
        return Ok(Vec::new());
    };
    let failed = |what: &dyn std::fmt::Display| {
        ApiError::Config(format!(
            "cannot use the certificate {} (--ca-cert): {what}",
            path.display()
        ))
    };
    let pem = std::fs::read(path).map_err(|error| failed(&error))?;
    // `from_pem` takes what is no certificate, and trusts nothing then.
    let bundle = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| failed(&error))?;
    if bundle.is_empty() {
        return Err(failed(
            &"no certificate is in it; it begins with '-----BEGIN CERTIFICATE-----'",
        ));
    }
    Ok(bundle)
}

/// Sends and waits for the head of the answer, `idle` at most.
pub(crate) async fn send(request: RequestBuilder, idle: Duration) -> Result<Response, ApiError> {
    match tokio::time::timeout(idle, Box::pin(request.send())).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(ApiError::from_network(error)),
        Err(_) => Err(ApiError::Timeout),
    }
}

/// The next piece of a body, waited for `idle` at most.
pub(crate) async fn chunk(
    response: &mut Response,
    idle: Duration,
) -> Result<Option<Bytes>, ApiError> {
    match tokio::time::timeout(idle, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(error)) => Err(ApiError::from_network(error)),
        Err(_) => Err(ApiError::Timeout),
    }
}

/// The whole body, `limit` bytes at most.
pub(crate) async fn body(
    mut response: Response,
    idle: Duration,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(piece) = chunk(&mut response, idle).await? {
        if whole.len() + piece.len() > limit {
            return Err(ApiError::BadReply("it is too long"));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_of_the_environment_is_not_passed_over() {
        let check = |variables: &[(&str, &str)]| {
            check_proxies(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
            .map_err(|error| error.to_string())
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[("ALL_PROXY", "")]), Ok(()));
        assert_eq!(check(&[("https_proxy", "proxy.example:3128")]), Ok(()));
        // What some desktops set: only where it would be used.
        let desktop = ("ALL_PROXY", "socks://127.0.0.1:1080/");
        assert!(check(&[desktop]).unwrap_err().contains("ALL_PROXY"));
        let http = ("http_proxy", "http://127.0.0.1:3128/");
        assert!(check(&[desktop, http]).is_err());
        let https = ("https_proxy", "http://127.0.0.1:3128/");
        assert_eq!(check(&[desktop, http, https]), Ok(()));
        let error = check(&[("HTTP_PROXY", "gopher://x"), http, https]).unwrap_err();
        assert!(error.contains("HTTP_PROXY"), "{error}");
        assert_eq!(check(&[desktop, ("NO_PROXY", "*")]), Ok(()));
        // Fine to people, and passed over.
        for value in [
            "SOCKS5://127.0.0.1:1080",
            "proxy.example:3128/",
            "http://proxy.example:3128 ",
            "http://user:p^w@proxy.example:3128",
        ] {
            assert!(check(&[("ALL_PROXY", value)]).is_err(), "{value}");
        }
        for value in [
            "socks5h://127.0.0.1:1080",
            "http://u:p%5Ew@proxy.example:3128/",
        ] {
            assert_eq!(check(&[("ALL_PROXY", value)]), Ok(()), "{value}");
        }
    }
}
