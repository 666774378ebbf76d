//! A bounded memory of who was seen lately.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// A map that forgets who was not seen for longest, in constant time whatever is thrown at it.
///
/// Two halves: what is seen goes to the young one; when that is full it becomes the old one, and the old one is gone.
/// So nothing seen among the last `capacity / 2` different keys is ever forgotten.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    /// Remembers at most `capacity` keys, and at least one.
    pub(super) fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (capacity / 2).max(1) }
    }

    /// Puts a key in its place, now seen.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Takes a key out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// A key's value, without having seen it.
    pub(super) fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_seen_half_is_never_forgotten() {
        let mut memory = Generations::new(8);
        for key in 0..100 {
            memory.insert(key, key);
            for recent in (0..4).map(|back| key - back).filter(|recent| *recent >= 0) {
                assert_eq!(memory.peek_mut(&recent), Some(&mut recent.clone()), "{recent} after {key}");
            }
            assert!(memory.len() <= 8);
        }
    }

    #[test]
    fn what_is_seen_again_outlives_what_is_not() {
        let mut memory = Generations::new(8);
        for key in 1..1000 {
            let kept = memory.remove(&0).unwrap_or(7);
            memory.insert(0, kept);
            memory.insert(key, 0);
        }
        assert_eq!(memory.remove(&0), Some(7));
    }
}
