//! Work that is not to take others with it when it panics.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Does some work; `None` when it panicked. The panic itself was said on standard error. What the work shares with anybody
/// is behind locks under which every change is whole.
pub(super) async fn caught<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.map_or(Poll::Ready(None), |polled| polled.map(Some))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_the_work_and_nothing_else() {
        let fails = async |fails: bool| {
            tokio::task::yield_now().await;
            assert!(!fails, "as it should");
            7
        };
        assert_eq!(caught(fails(false)).await, Some(7));
        assert_eq!(caught(fails(true)).await, None);
    }
}
