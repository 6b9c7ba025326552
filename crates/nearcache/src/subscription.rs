//! A bounded stream of events from one hub to any number of subscribers.
//!
//! Whoever makes events never waits: a subscriber that falls behind loses the oldest events and is
//! told how many. With no subscriber an event costs one relaxed load.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use parking_lot::Mutex;

/// What a subscriber sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received<T> {
    /// The next event.
    Event(T),
    /// That many events were dropped because the subscriber did not keep up. Whoever mirrors the
    /// state elsewhere reads it afresh now.
    Missed(u64),
}

/// Hands events to all subscribers.
pub(crate) struct Hub<T> {
    queues: Mutex<Vec<Arc<Queue<T>>>>,
    subscribers: AtomicUsize,
}

impl<T> fmt::Debug for Hub<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("subscribers", &self.subscribers)
            .finish_non_exhaustive()
    }
}

impl<T> Default for Hub<T> {
    fn default() -> Self {
        Self {
            queues: Mutex::default(),
            subscribers: AtomicUsize::new(0),
        }
    }
}

impl<T: Clone> Hub<T> {
    /// A new subscriber, who sees what is sent from now on and may lag `capacity` events behind.
    pub(crate) fn subscribe(&self, capacity: usize) -> Subscription<T> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            capacity: capacity.max(1),
        });
        let mut queues = self.queues.lock();
        queues.push(Arc::clone(&queue));
        self.subscribers.store(queues.len(), Ordering::Relaxed);
        Subscription { queue }
    }

    /// Whether somebody listens. Without that, events need not even be built.
    pub(crate) fn is_watched(&self) -> bool {
        self.subscribers.load(Ordering::Relaxed) > 0
    }

    /// Hands `event` to all. Subscribers that are gone are forgotten.
    pub(crate) fn send(&self, event: &T) {
        if !self.is_watched() {
            return;
        }
        let mut queues = self.queues.lock();
        queues.retain(|queue| Arc::strong_count(queue) > 1);
        self.subscribers.store(queues.len(), Ordering::Relaxed);
        for queue in queues.iter() {
            queue.push(event.clone());
        }
    }

    /// Ends all subscriptions once they have seen what was sent.
    pub(crate) fn close(&self) {
        let queues = std::mem::take(&mut *self.queues.lock());
        self.subscribers.store(0, Ordering::Relaxed);
        for queue in queues {
            queue.close();
        }
    }
}

struct Queue<T> {
    state: Mutex<QueueState<T>>,
    capacity: usize,
}

struct QueueState<T> {
    events: VecDeque<T>,
    missed: u64,
    is_closed: bool,
    waker: Option<Waker>,
}

impl<T> Default for QueueState<T> {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            missed: 0,
            is_closed: false,
            waker: None,
        }
    }
}

impl<T> Queue<T> {
    fn push(&self, event: T) {
        let mut state = self.state.lock();
        if state.events.len() == self.capacity {
            state.events.pop_front();
            state.missed += 1;
        }
        state.events.push_back(event);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A stream of events. Ends when its source ends; dropping it unsubscribes.
pub struct Subscription<T> {
    queue: Arc<Queue<T>>,
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("queued", &self.queue.state.lock().events.len())
            .finish_non_exhaustive()
    }
}

impl<T> Subscription<T> {
    /// Waits for the next event; `None` once the source has ended.
    ///
    /// Cancel-safe: an event is taken only when it is returned.
    pub async fn next(&mut self) -> Option<Received<T>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Received<T>> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(received) => received,
            Poll::Pending => None,
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Received<T>>> {
        let mut state = self.queue.state.lock();
        if state.missed > 0 {
            return Poll::Ready(Some(Received::Missed(std::mem::take(&mut state.missed))));
        }
        if let Some(event) = state.events.pop_front() {
            return Poll::Ready(Some(Received::Event(event)));
        }
        if state.is_closed {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Stream for Subscription<T> {
    type Item = Received<T>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received<T>>> {
        self.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_that_lags_learns_how_much_it_missed() {
        let hub = Hub::default();
        let mut slow = hub.subscribe(2);
        for event in 0..5 {
            hub.send(&event);
        }
        assert_eq!(slow.try_next(), Some(Received::Missed(3)));
        assert_eq!(slow.try_next(), Some(Received::Event(3)));
        assert_eq!(slow.try_next(), Some(Received::Event(4)));
        assert_eq!(slow.try_next(), None);
    }

    #[test]
    fn a_dropped_subscriber_is_forgotten() {
        let hub = Hub::default();
        drop(hub.subscribe(2));
        hub.send(&1);
        assert!(!hub.is_watched());
    }

    #[tokio::test]
    async fn closing_the_hub_ends_the_stream_after_what_was_sent() {
        let hub = Hub::default();
        let mut subscription = hub.subscribe(2);
        hub.send(&1);
        hub.close();
        assert_eq!(subscription.next().await, Some(Received::Event(1)));
        assert_eq!(subscription.next().await, None);
    }
}
