//! Questions of several callers in one request.
//!
//! Thirty files that are uploaded at a time ask for thirty addresses; one request per question would
//! cost each of them a round trip and a place in the queue. A question goes out at once when the line
//! is free; what arrives while [`LANES`] requests are under way waits and goes together. Nobody waits for
//! others to come. Only for commands that change nothing, so that a repeat is harmless; a question whose
//! asker has gone away is answered to nobody.

use std::sync::{Mutex, PoisonError};

use mega_proto::Command;
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};

use crate::api::Api;
use crate::error::ApiError;

/// Joint requests under way at a time.
const LANES: usize = 2;
/// Most questions in one request.
const MOST: usize = 100;

type Asker = oneshot::Sender<Result<Value, ApiError>>;

/// Who waits to be asked for.
pub(crate) struct Joint {
    waiting: Mutex<Vec<(Command, Asker)>>,
    lanes: Semaphore,
}

impl Default for Joint {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Vec::new()),
            lanes: Semaphore::new(LANES),
        }
    }
}

impl Joint {
    fn push(&self, command: Command, asker: Asker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((command, asker));
    }

    /// The next questions; those whose asker has gone are dropped.
    fn take(&self) -> Vec<(Command, Asker)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(_, asker)| !asker.is_closed());
        let count = waiting.len().min(MOST);
        waiting.drain(..count).collect()
    }
}

impl Api {
    /// As [`command`](Self::command), perhaps in one request with the questions of others. `command` must
    /// change nothing.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub(crate) async fn ask(&self, command: Command) -> Result<Value, ApiError> {
        let (asker, answer) = oneshot::channel();
        self.0.joint.push(command, asker);
        let api = self.clone();
        // A task of its own: the asker that came first may leave while the others wait.
        tokio::spawn(async move { api.ask_for_all().await });
        answer
            .await
            .map_err(|_| ApiError::Internal("a question was dropped"))?
    }

    async fn ask_for_all(&self) {
        let Ok(_lane) = self.0.joint.lanes.acquire().await else {
            return;
        };
        let questions = self.0.joint.take();
        if questions.is_empty() {
            // They went with an earlier request.
            return;
        }
        let (commands, askers): (Vec<_>, Vec<_>) = questions.into_iter().unzip();
        match self.send(&self.freeze(&commands)).await {
            Ok(answers) => {
                for (asker, answer) in askers.into_iter().zip(answers) {
                    let _ = asker.send(answer.map_err(ApiError::from_code));
                }
            }
            Err(error) => {
                for asker in askers {
                    let _ = asker.send(Err(error.clone()));
                }
            }
        }
    }
}
