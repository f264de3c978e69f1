//! How fast one client is read.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A bucket that fills at `rate` a second and holds one second's worth.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: u32) -> Self {
        let rate = f64::from(rate.max(1));
        Self { rate, level: rate, at: Instant::now() }
    }

    fn take(&mut self, amount: f64, now: Instant) {
        let filled = self.level + now.duration_since(self.at).as_secs_f64() * self.rate;
        self.level = filled.min(self.rate) - amount;
        self.at = now;
    }

    /// When the bucket is out of debt.
    fn ready_at(&self) -> Instant {
        self.at + Duration::from_secs_f64((-self.level / self.rate).max(0.0))
    }
}

/// The rate limits of one client. A client may go into debt by one read, and is not read until the debt is paid.
pub(crate) struct Limiter {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Limiter {
    /// `None` when nothing is limited.
    pub(crate) fn new(messages: Option<u32>, bytes: Option<u32>) -> Option<Box<Self>> {
        (messages.is_some() || bytes.is_some()).then(|| {
            Box::new(Self { messages: messages.map(Bucket::new), bytes: bytes.map(Bucket::new), pause: None })
        })
    }

    /// Counts a publish.
    pub(crate) fn take(&mut self, bytes: usize) {
        let now = Instant::now();
        for (bucket, amount) in [(&mut self.messages, 1.0), (&mut self.bytes, bytes as f64)] {
            if let Some(bucket) = bucket {
                bucket.take(amount, now);
                if bucket.level < 0.0 {
                    let until = bucket.ready_at();
                    let later = self.pause.as_ref().is_none_or(|pause| pause.deadline() < until);
                    if later {
                        self.pause = Some(Box::pin(sleep_until(until)));
                    }
                }
            }
        }
    }

    /// Whether the client is in debt.
    pub(crate) fn paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Ready when the client may be read again.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_pays_its_debt_in_time() {
        let mut limiter = Limiter::new(Some(10), None).expect("a limit");
        for _ in 0..10 {
            limiter.take(1000);
        }
        assert!(!limiter.paused(), "a second's worth at once");
        for _ in 0..5 {
            limiter.take(1000);
        }
        assert!(limiter.paused());
        let start = Instant::now();
        std::future::poll_fn(|cx| limiter.poll(cx)).await;
        let waited = start.elapsed().as_secs_f64();
        assert!(waited > 0.4, "{waited}");
        assert!(Limiter::new(None, None).is_none());
    }
}
