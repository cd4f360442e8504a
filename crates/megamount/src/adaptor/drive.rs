//! How an operation runs: polled once on the kernel's thread, continued on the runtime if it waits.
//!
//! Most operations are answered from memory and never leave the thread that asked. One that has to
//! wait moves to tokio together with its reply. Each has a deadline, because fuser cannot be told
//! that the application was interrupted: at the deadline the application gets ETIMEDOUT. What only
//! asks is cancelled then; what changes something is left to finish, so that no operation ever stops
//! half-way, and what it made for the application (a reference, a handle) is given back.
//!
//! A panic in an operation costs that application one EIO and is logged.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fuser::Request;
use mega_vfs::{OpResult, Vfs};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tracing::{Instrument, Span};

use super::Adaptor;

/// What an operation does, as far as its deadline is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only asks: cancelled at the deadline.
    Query,
    /// Changes something or makes something to give back: finishes after the deadline.
    Change,
    /// Waits for storage to be stable, which a slow disk may take long for: finishes, later
    /// deadline.
    Sync,
    /// Waits for Mega to have something, which may take as long as it is large: ends by itself when
    /// nothing moves.
    Push,
}

/// One request, for the log and the deadline.
#[derive(Debug)]
pub(super) struct Op {
    name: &'static str,
    kind: Kind,
    deadline: Duration,
    span: Span,
}

impl Op {
    /// A request for `ino`.
    pub(super) fn new(
        req: &Request,
        name: &'static str,
        ino: u64,
        kind: Kind,
        deadline: Duration,
    ) -> Self {
        let span = tracing::debug_span!(
            "request",
            op = name,
            req = req.unique().0,
            ino,
            pid = req.pid(),
            fh = tracing::field::Empty,
            off = tracing::field::Empty,
            len = tracing::field::Empty,
        );
        let deadline = match kind {
            Kind::Query | Kind::Change => deadline,
            Kind::Sync => deadline * 5,
            Kind::Push => Duration::MAX,
        };
        Self {
            name,
            kind,
            deadline,
            span,
        }
    }

    /// The same with a handle and a range.
    pub(super) fn at(self, fh: u64, offset: u64, length: u64) -> Self {
        self.span
            .record("fh", fh)
            .record("off", offset)
            .record("len", length);
        self
    }

    fn log<T>(&self, result: &OpResult<T>) {
        match result {
            Ok(_) => self.span.in_scope(|| tracing::debug!("answered")),
            Err(error) => self
                .span
                .in_scope(|| tracing::debug!(errno = %error, "refused")),
        }
    }
}

impl Adaptor {
    /// Runs `future` and hands its result to `answer`, here and now if it need not wait. A result
    /// that comes after the deadline goes to `undo` instead.
    pub(super) fn run<T, F, A, U>(&self, op: Op, future: F, answer: A, undo: U)
    where
        T: Send + 'static,
        F: Future<Output = OpResult<T>> + Send + 'static,
        A: FnOnce(OpResult<T>) + Send + 'static,
        U: FnOnce(T) + Send + 'static,
    {
        // Operations may spawn and set timers, also while they are polled here.
        let _context = self.runtime.enter();
        let mut future = Box::pin(future.instrument(op.span.clone()));
        match poll_once(op.name, future.as_mut()) {
            Poll::Ready(result) => {
                op.log(&result);
                answer(result);
            }
            Poll::Pending => {
                self.runtime.spawn(finish(op, future, answer, undo));
            }
        }
    }

    /// The result of `future` if it has one without waiting. If not, it is dropped: only for what
    /// does nothing before it waits.
    pub(super) fn try_now<T>(
        &self,
        op: &Op,
        future: impl Future<Output = OpResult<T>>,
    ) -> Option<OpResult<T>> {
        let _context = self.runtime.enter();
        let _span = op.span.enter();
        match poll_once(op.name, pin!(future)) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }
}

/// Waits for the rest of an operation, up to its deadline.
async fn finish<T, F, A, U>(op: Op, mut future: Pin<Box<F>>, answer: A, undo: U)
where
    F: Future<Output = OpResult<T>>,
    A: FnOnce(OpResult<T>),
    U: FnOnce(T),
{
    if let Ok(result) = tokio::time::timeout(op.deadline, future.as_mut()).await {
        op.log(&result);
        return answer(result);
    }
    op.span
        .in_scope(|| tracing::warn!(op = op.name, "not answered in time"));
    answer(Err(Errno::TIMEDOUT));
    if op.kind == Kind::Query {
        return;
    }
    if let Ok(unheard) = future.await {
        undo(unheard);
    }
}

/// Polls once. A panic becomes EIO.
fn poll_once<T>(
    name: &'static str,
    future: Pin<&mut impl Future<Output = OpResult<T>>>,
) -> Poll<OpResult<T>> {
    // Whoever continues the future polls it again first, which registers the real waker.
    let mut context = Context::from_waker(Waker::noop());
    let polled = catch_unwind(AssertUnwindSafe(|| future.poll(&mut context)));
    polled.unwrap_or_else(|panic| {
        report(name, panic.as_ref());
        Poll::Ready(Err(Errno::IO))
    })
}

/// Runs `work`, which must not take the kernel's thread with it when it panics.
pub(super) fn guarded(name: &'static str, work: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
        report(name, panic.as_ref());
    }
}

fn report(op: &'static str, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        op,
        text = text.unwrap_or("no text"),
        "an operation panicked"
    );
}

/// Closes a file handle that came too late for the application.
pub(super) fn release_late(runtime: &Handle, vfs: Arc<Vfs>, ino: u64, fh: u64) {
    runtime.spawn(async move {
        if let Err(error) = vfs.release(ino, fh).await {
            tracing::warn!(errno = %error, "a late handle was not released");
        }
    });
}

/// Closes a directory handle that came too late for the application.
pub(super) fn releasedir_late(runtime: &Handle, vfs: Arc<Vfs>, fh: u64) {
    runtime.spawn(async move {
        if let Err(error) = vfs.releasedir(fh).await {
            tracing::warn!(errno = %error, "a late handle was not released");
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn op(kind: Kind, deadline: Duration) -> Op {
        Op {
            name: "test",
            kind,
            deadline,
            span: Span::none(),
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    }

    #[test]
    fn a_panic_is_eio() {
        let result: Poll<OpResult<()>> = poll_once("test", pin!(async { panic!("on purpose") }));
        assert_eq!(result, Poll::Ready(Err(Errno::IO)));
        guarded("test", || panic!("on purpose"));
    }

    #[test]
    fn what_is_ready_is_answered_at_once() {
        let result = poll_once("test", pin!(async { OpResult::Ok(5) }));
        assert_eq!(result, Poll::Ready(Ok(5)));
    }

    #[test]
    fn a_future_that_was_polled_inline_is_woken_later() {
        let runtime = runtime();
        let (sender, receiver) = tokio::sync::oneshot::channel::<u32>();
        let mut future = Box::pin(async move { receiver.await.map_err(|_| Errno::IO) });
        assert!(poll_once("test", future.as_mut()).is_pending());
        let (answered, answers) = mpsc::channel();
        runtime.block_on(async {
            let task = tokio::spawn(finish(
                op(Kind::Query, Duration::from_secs(60)),
                future,
                move |result| answered.send(result).unwrap(),
                drop,
            ));
            sender.send(7).unwrap();
            task.await.unwrap();
        });
        assert_eq!(answers.recv().unwrap(), Ok(7));
    }

    /// Runs an operation that gets what it waits for only once its application has been answered;
    /// says what the answer was, whether the operation finished and whether its result was undone.
    fn too_late(kind: Kind) -> (OpResult<()>, bool, bool) {
        let finished = Arc::new(AtomicBool::new(false));
        let undone = Arc::new(AtomicBool::new(false));
        let (answered, answers) = mpsc::channel();
        let (release, released) = tokio::sync::oneshot::channel();
        let (set_finished, set_undone) = (Arc::clone(&finished), Arc::clone(&undone));
        let future = Box::pin(async move {
            released.await.map_err(|_| Errno::IO)?;
            set_finished.store(true, Ordering::SeqCst);
            Ok(())
        });
        runtime().block_on(finish(
            op(kind, Duration::from_millis(10)),
            future,
            move |result| {
                answered.send(result).unwrap();
                release.send(()).unwrap();
            },
            move |()| set_undone.store(true, Ordering::SeqCst),
        ));
        let flags = (
            finished.load(Ordering::SeqCst),
            undone.load(Ordering::SeqCst),
        );
        (answers.recv().unwrap(), flags.0, flags.1)
    }

    #[test]
    fn queries_end_at_the_deadline_and_changes_finish_after_it() {
        assert_eq!(too_late(Kind::Query), (Err(Errno::TIMEDOUT), false, false));
        assert_eq!(too_late(Kind::Change), (Err(Errno::TIMEDOUT), true, true));
    }
}
