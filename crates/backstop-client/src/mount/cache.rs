//! What was decoded lately, bounded by its weight.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Values by inode number. Two generations: when the young one reaches half of the limit it becomes the old one, and
/// what nobody asked for since then is dropped. The value added last is always kept.
pub(super) struct Cache<V> {
    limit: usize,
    generations: Mutex<Generations<V>>,
}

struct Generations<V> {
    young: HashMap<u64, (Arc<V>, usize)>,
    young_weight: usize,
    old: HashMap<u64, (Arc<V>, usize)>,
}

impl<V> Cache<V> {
    /// An empty cache for values of together at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                young_weight: 0,
                old: HashMap::new(),
            }),
        }
    }

    pub(super) fn get(&self, key: u64) -> Option<Arc<V>> {
        let mut generations = self.generations.lock();
        if let Some((value, _)) = generations.young.get(&key) {
            return Some(Arc::clone(value));
        }
        let (value, weight) = generations.old.remove(&key)?;
        self.put(&mut generations, key, Arc::clone(&value), weight);
        Some(value)
    }

    /// Adds a value of about `weight` bytes.
    pub(super) fn insert(&self, key: u64, value: Arc<V>, weight: usize) {
        self.put(&mut self.generations.lock(), key, value, weight);
    }

    fn put(&self, generations: &mut Generations<V>, key: u64, value: Arc<V>, weight: usize) {
        if generations.young_weight.saturating_add(weight) > self.limit / 2 {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_weight = 0;
        }
        generations.young_weight = generations.young_weight.saturating_add(weight);
        if let Some((_, replaced)) = generations.young.insert(key, (value, weight)) {
            generations.young_weight = generations.young_weight.saturating_sub(replaced);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let cache = Cache::new(100);
        for key in 0..1000 {
            cache.insert(key, Arc::new(key), 10);
            assert_eq!(cache.get(0).as_deref(), Some(&0));
            assert_eq!(cache.get(key).as_deref(), Some(&key));
        }
        let kept = (0..1000).filter(|key| cache.get(*key).is_some()).count();
        assert!(kept <= 10, "{kept}");
    }

    #[test]
    fn a_value_beyond_the_limit_is_kept_until_the_next() {
        let cache = Cache::new(100);
        cache.insert(1, Arc::new(1), 1000);
        assert_eq!(cache.get(1).as_deref(), Some(&1));
        cache.insert(2, Arc::new(2), 1000);
        cache.insert(3, Arc::new(3), 1000);
        assert!(cache.get(1).is_none());
    }
}
