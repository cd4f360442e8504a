//! Whether the service answers at all, and what time it has: for telling what is wrong with a machine.

use std::time::{Duration, SystemTime};

use crate::api::Api;
use crate::error::ApiError;
use crate::http;

/// What an answer of the service says before anybody has logged in.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// From the first byte that was sent, connecting included, to the head of the answer.
    pub took: Duration,
    /// The time of the `Date` header, whole seconds.
    pub server_time: Option<SystemTime>,
}

impl Api {
    /// Asks for nothing, once, without a session and not as a command. Any answer will do, also "not found".
    ///
    /// # Errors
    /// The network, TLS, or no answer within the timeout.
    pub async fn probe(&self) -> Result<Probe, ApiError> {
        let started = std::time::Instant::now();
        let request = self.0.http.api.get(format!("{}/", self.0.http.origin()));
        let response = http::send(request, self.config().timeout).await?;
        let date = response.headers().get("date");
        Ok(Probe {
            took: started.elapsed(),
            server_time: date
                .and_then(|date| date.to_str().ok())
                .and_then(|date| httpdate::parse_http_date(date).ok()),
        })
    }
}
