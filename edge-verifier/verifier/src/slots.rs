//! Values that wait under a number while their request awaits.

use alloc::vec::Vec;

/// Numbered places; a freed one is used again.
pub(crate) struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Keeps `value`; its number.
    pub(crate) fn put(&mut self, value: T) -> i32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(value);
        i32::try_from(place).unwrap_or(i32::MAX)
    }

    pub(crate) fn get(&self, place: usize) -> Option<&T> {
        self.places.get(place)?.as_ref()
    }

    /// Removes it; only the first call gets it.
    pub(crate) fn take(&mut self, place: usize) -> Option<T> {
        let value = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn a_value_is_taken_once_and_its_place_used_again() {
        let mut slots = Slots::default();
        assert_eq!((slots.put('a'), slots.put('b')), (0, 1));
        assert_eq!((slots.take(0), slots.take(0), slots.take(9)), (Some('a'), None, None));
        assert_eq!(slots.put('c'), 0);
        assert_eq!((slots.get(0), slots.get(1)), (Some(&'c'), Some(&'b')));
    }
}
