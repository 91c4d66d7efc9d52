//! Pure. The caller's reusable buffer into which machines write what they want done.

/// Wishes of one or many machines, in the order they were made. The shell drains it with one exhaustive match.
#[derive(Debug)]
pub struct Effects<T> {
    items: Vec<T>,
}

impl<T> Default for Effects<T> {
    fn default() -> Self {
        Effects { items: Vec::new() }
    }
}

impl<T> Effects<T> {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn push(&mut self, effect: T) {
        self.items.push(effect);
    }
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    pub fn len(&self) -> usize {
        self.items.len()
    }
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }
    /// Takes back what was wished since the buffer had `len` items (a call that did not end well).
    pub fn truncate(&mut self, len: usize) {
        self.items.truncate(len);
    }
    /// Takes everything out, in order, and keeps the allocation.
    pub fn drain(&mut self) -> std::vec::Drain<'_, T> {
        self.items.drain(..)
    }
}
