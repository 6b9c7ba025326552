//! The task that loads several keys with one call of the loader.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::Loaded;
use super::call::Answer;
use super::error::{BoxError, LoadError};
use super::fly::{Leased, Seat};
use crate::cache::Cache;
use crate::cache::shell::{Load, Start};
use crate::codec::Codec;

/// How long what is ours waits for the answers of home nodes, so that it leaves together with what they give us (guess: some
/// round trips within a data centre).
const TOGETHER_WAIT: Duration = Duration::from_millis(10);

/// A key whose turn it is; nothing if its flight has landed.
type Turn<K, P> = Pin<Box<dyn Future<Output = Option<(Leased<P>, K)>> + Send>>;

/// Makes the loads of several keys: with one call, as far as nobody else in the cluster loads them. What others load is
/// not waited for before the call is made, so that two nodes that load for each other do not wait for each other. If they
/// bring nothing, another call is made, after the first.
pub(super) async fn fly_many<K, V, C>(
    cache: Cache<K, V, C>,
    start: Start,
    seats: Vec<(Seat<C::Cell>, K)>,
    load_many: impl Fn(Vec<K>) -> Answer<Vec<Loaded<V>>>,
) where
    K: Send + 'static,
    V: Send + 'static,
    C: Codec<V>,
{
    let Some(seats) = cache.place_for_all(start, seats).await else {
        return;
    };
    let (mut ours, mut turns) = (Vec::new(), JoinSet::new());
    for (seat, key) in seats {
        let Some(seat) = cache.still_missing(seat) else {
            continue;
        };
        let mut turn = cache.turn_of(seat, key);
        // Mostly this node is in charge, or nobody.
        match poll_fn(|context| Poll::Ready(turn.as_mut().poll(context))).await {
            Poll::Ready(leased) => ours.extend(leased),
            Poll::Pending => {
                turns.spawn(turn);
            }
        }
    }
    loop {
        let together_by = Instant::now() + TOGETHER_WAIT;
        while !turns.is_empty() {
            let next = turns.join_next();
            let next = if ours.is_empty() {
                next.await
            } else {
                match timeout_at(together_by, next).await {
                    Ok(next) => next,
                    Err(_) => break,
                }
            };
            // A turn that has panicked has landed its flight.
            ours.extend(next.and_then(Result::ok).flatten());
        }
        if ours.is_empty() {
            return;
        }
        cache.call_for(std::mem::take(&mut ours), &load_many).await;
    }
}

impl<K: Send + 'static, V: Send + 'static, C: Codec<V>> Cache<K, V, C> {
    /// Waits for the place that the call of all these seats has.
    async fn place_for_all(
        &self,
        start: Start,
        seats: Vec<(Seat<C::Cell>, K)>,
    ) -> Option<Vec<(Seat<C::Cell>, K)>> {
        let (first, _) = seats.first()?;
        if self.has_place(start, first).await {
            return Some(seats);
        }
        for (seat, _) in seats {
            self.overloaded(seat);
        }
        None
    }

    fn turn_of(&self, seat: Seat<C::Cell>, key: K) -> Turn<K, C::Cell> {
        // A lease may wait until the call for others has ended, and is then needed for as long again.
        let lease_for = self.shell.loads().policy().load_timeout * 2;
        let asked = self.shell.ask_lease(&seat.key, lease_for);
        let cache = self.clone();
        Box::pin(async move {
            let turn: Load<C::Cell> = cache.shell.turn(asked).await;
            Some((cache.after_turn(seat, turn).await?, key))
        })
    }

    /// One call of the loader.
    async fn call_for(
        &self,
        leased: Vec<(Leased<C::Cell>, K)>,
        load_many: &impl Fn(Vec<K>) -> Answer<Vec<Loaded<V>>>,
    ) {
        let loads = self.shell.loads();
        let Some(admission) = loads.admits(self.shell.node().now()) else {
            for ((seat, _), _) in leased {
                loads.counters().circuit_open.inc();
                seat.flight.land(Err(LoadError::CircuitOpen));
            }
            return;
        };
        let departed = leased
            .into_iter()
            .map(|((seat, lease), key)| (self.depart(seat, lease), key));
        let (departed, keys): (Vec<_>, Vec<_>) = departed.unzip();
        // One that can be read shows that the system of record answers.
        let is_answer = |answers: &Vec<Loaded<V>>| !answers.iter().all(Loaded::is_failed);
        let answered = self.ask(admission, load_many(keys), is_answer).await;
        let answered = answered.and_then(|answers| {
            let (wanted, got) = (departed.len(), answers.len());
            if wanted == got {
                return Ok(answers);
            }
            let what =
                format!("load_many was asked for {wanted} keys and answered with {got} values");
            Err(LoadError::Failed(Arc::from(BoxError::from(what))))
        });
        match answered {
            Ok(answers) => {
                for (departed, loaded) in departed.into_iter().zip(answers) {
                    self.arrive_at(departed, Ok(loaded));
                }
            }
            Err(error) => {
                for departed in departed {
                    self.arrive_at(departed, Err(error.clone()));
                }
            }
        }
    }
}
