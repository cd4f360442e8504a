//! Lets futures of this crate be polled outside of the tokio runtime.
//!
//! The kernel adaptor polls an operation once on its own thread before it spawns it. Timers and tasks
//! made during that poll need the runtime's context; this wrapper enters it for each poll.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// A boxed future that enters a runtime whenever it is polled.
pub(crate) struct InRuntime<T> {
    runtime: Handle,
    inner: Pin<Box<dyn Future<Output = T> + Send>>,
}

impl<T> InRuntime<T> {
    pub(crate) fn new(runtime: &Handle, inner: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            runtime: runtime.clone(),
            inner: Box::pin(inner),
        }
    }
}

impl<T> Future for InRuntime<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        let _entered = this.runtime.enter();
        this.inner.as_mut().poll(context)
    }
}

impl<T> std::fmt::Debug for InRuntime<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InRuntime")
    }
}
