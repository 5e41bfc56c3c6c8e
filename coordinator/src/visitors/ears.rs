//! Who hears the seconds of one environment, each at their own pace. What an ear has not heard yet is not lost with it:
//! whoever goes on where it ended hears that first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pointsman_core::ports::{Ear, Heard};
use tokio::sync::Notify;

/// Seconds that wait for one ear: the quarter of an hour that agents keep, and what comes while somebody goes through it.
/// Where more come the oldest are seconds without data.
const MOST: usize = 1_024;

/// What one ear has not heard yet.
#[derive(Debug, Default)]
struct Queue {
    heard: Mutex<VecDeque<Heard>>,
    came: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// Whether there was room.
    fn push(&self, heard: Heard) -> bool {
        let mut queue = locked(&self.heard);
        let room = queue.len() < MOST;
        if !room {
            queue.pop_front();
        }
        queue.push_back(heard);
        drop(queue);
        self.came.notify_one();
        room
    }

    /// Forgets what is not newer than a second, and every silence: that is over.
    fn only_after(&self, number: u64) {
        let newer = |heard: &Heard| matches!(heard, Heard::Second(second) if second.position.number > number);
        locked(&self.heard).retain(newer);
    }
}

#[derive(Debug, Default)]
struct All {
    ears: Vec<Weak<Queue>>,
    /// What nobody listens to just now, for whoever goes on.
    left: Option<Arc<Queue>>,
}

impl All {
    fn begin(&mut self) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        self.ears.push(Arc::downgrade(&queue));
        queue
    }
}

/// Everybody who hears the seconds of an environment. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ears(Arc<Mutex<All>>);

impl Ears {
    /// Remembers what comes from now on, until somebody goes on with it, or it is too much: then nobody will.
    pub(crate) fn expect(&self) {
        let mut all = locked(&self.0);
        all.left = Some(all.begin());
    }

    /// Tells everybody.
    pub(crate) fn tell(&self, heard: &Heard) {
        let mut all = locked(&self.0);
        let All { ears, left } = &mut *all;
        ears.retain(|ear| {
            let Some(queue) = ear.upgrade() else { return false };
            let room = queue.push(heard.clone());
            if !room && left.as_ref().is_some_and(|left| Arc::ptr_eq(left, &queue)) {
                *left = None;
            }
            true
        });
    }

    /// An ear for what comes from now on; with `after` for what came since that second and nobody has heard, too.
    pub(crate) fn listen(&self, after: Option<u64>) -> LookoutEar {
        let mut all = locked(&self.0);
        // Whoever does not go on needs nothing of before, and neither does anybody later.
        let left = all.left.take().zip(after).map(|(left, after)| {
            left.only_after(after);
            left
        });
        let queue = left.unwrap_or_else(|| all.begin());
        LookoutEar { queue, ears: self.clone(), last: None }
    }

    /// An ear is put down.
    fn leave(&self, queue: Arc<Queue>) {
        locked(&self.0).left = Some(queue);
    }
}

/// An ear of a lookout.
#[derive(Debug)]
pub struct LookoutEar {
    queue: Arc<Queue>,
    ears: Ears,
    /// What was told last. Whether anything came of it shows when the next is asked for.
    last: Option<Heard>,
}

impl Ear for LookoutEar {
    async fn next(&mut self) -> Heard {
        self.last = None;
        loop {
            let next = locked(&self.queue.heard).pop_front();
            if let Some(heard) = next {
                self.last = Some(heard.clone());
                return heard;
            }
            self.queue.came.notified().await;
        }
    }
}

impl Drop for LookoutEar {
    fn drop(&mut self) {
        if let Some(heard) = self.last.take() {
            locked(&self.queue.heard).push_front(heard);
        }
        self.ears.leave(Arc::clone(&self.queue));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use futures_util::FutureExt as _;
    use pointsman_core::ports::{Position, Second};
    use pointsman_core::{Code, Problem};

    fn second(number: u64) -> Heard {
        let position = Position { number, read: BTreeMap::new() };
        Heard::Second(Second { position, seen: Arc::default(), blind: None })
    }

    /// The numbers of what an ear has to hear now.
    fn heard(ear: &mut LookoutEar) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(heard) = ear.next().now_or_never() {
            numbers.push(match heard {
                Heard::Second(second) => second.position.number,
                Heard::Silence(_) => 0,
            });
        }
        numbers
    }

    #[test]
    fn each_ear_hears_at_its_own_pace_from_its_beginning() {
        let ears = Ears::default();
        ears.tell(&second(1));
        let mut one = ears.listen(None);
        ears.tell(&second(2));
        let mut another = ears.listen(None);
        ears.tell(&second(3));
        assert_eq!((heard(&mut one), heard(&mut another)), (vec![2, 3], vec![3]));
        ears.tell(&second(4));
        assert_eq!((heard(&mut one), heard(&mut another)), (vec![4], vec![4]));
    }

    #[test]
    fn whoever_goes_on_hears_what_came_meanwhile_and_nobody_else_does() {
        let ears = Ears::default();
        ears.expect();
        (1..=3).for_each(|number| ears.tell(&second(number)));
        ears.tell(&Heard::Silence(Problem::new(Code::AgentUnreachable, "nothing")));
        let mut ear = ears.listen(Some(1));
        ears.tell(&second(4));
        assert_eq!(heard(&mut ear), [2, 3, 4]);
        ears.tell(&second(5));
        ears.tell(&second(6));
        // The fifth was told, and nobody knows what came of it.
        assert!(ear.next().now_or_never().is_some());
        drop(ear);
        ears.tell(&second(7));
        let mut next = ears.listen(Some(4));
        assert_eq!(heard(&mut next), [5, 6, 7]);
        drop(next);
        ears.tell(&second(8));
        // Another release begins: what came before it is not its own, then or later.
        let mut other = ears.listen(None);
        ears.tell(&second(9));
        assert_eq!(heard(&mut other), [9]);
    }

    #[test]
    fn what_waits_is_bounded_and_what_nobody_wants_is_dropped() {
        let ears = Ears::default();
        let mut slow = ears.listen(None);
        let most = MOST as u64;
        (1..=most + 5).for_each(|number| ears.tell(&second(number)));
        assert_eq!(heard(&mut slow).first(), Some(&6));
        drop(slow);
        (1..=most).for_each(|number| ears.tell(&second(number)));
        assert!(locked(&ears.0).left.is_some());
        (1..=2).for_each(|number| ears.tell(&second(number)));
        assert!(locked(&ears.0).left.is_none());
        ears.tell(&second(1));
        assert!(locked(&ears.0).ears.is_empty());
    }
}
