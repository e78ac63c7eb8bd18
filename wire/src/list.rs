//! Lists of items in a header: read where they lie, written from there or from a slice.
//!
//! One type serves both directions, so that a frame taken apart and a frame being made are the same
//! struct. A wire list is only ever made by the decoder, after it has checked every item; reading
//! its items again cannot fail.

/// Something a header holds a list of.
pub trait Item<'a>: Copy {
    /// Cuts the first item off bytes that the decoder has checked. `None` ends the list.
    fn cut(bytes: &'a [u8]) -> Option<(Self, &'a [u8])>;
}

/// A list of `T`: in the bytes of a frame, or in a slice of the caller.
#[derive(Clone, Copy)]
pub struct List<'a, T> {
    source: Source<'a, T>,
}

#[derive(Clone, Copy)]
enum Source<'a, T> {
    Wire { bytes: &'a [u8], count: usize },
    Slice(&'a [T]),
}

impl<'a, T: Item<'a>> List<'a, T> {
    /// A list the decoder has checked.
    pub(crate) fn wire(bytes: &'a [u8], count: usize) -> Self {
        Self { source: Source::Wire { bytes, count } }
    }

    /// The items' bytes, if they lie in a frame.
    pub(crate) fn wire_bytes(self) -> Option<&'a [u8]> {
        match self.source {
            Source::Wire { bytes, .. } => Some(bytes),
            Source::Slice(_) => None,
        }
    }

    /// Number of items.
    #[must_use]
    pub fn len(self) -> usize {
        match self.source {
            Source::Wire { count, .. } => count,
            Source::Slice(items) => items.len(),
        }
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The items in order.
    #[must_use]
    pub fn iter(self) -> Iter<'a, T> {
        Iter { source: self.source }
    }
}

/// Items of a [`List`].
#[derive(Clone)]
pub struct Iter<'a, T> {
    source: Source<'a, T>,
}

impl<'a, T: Item<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.source {
            Source::Wire { bytes, count } => {
                *count = count.checked_sub(1)?;
                let (item, rest) = T::cut(bytes)?;
                *bytes = rest;
                Some(item)
            }
            Source::Slice(items) => {
                let (item, rest) = items.split_first()?;
                *items = rest;
                Some(*item)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.source {
            Source::Wire { count, .. } => (count, Some(count)),
            Source::Slice(items) => (items.len(), Some(items.len())),
        }
    }
}

impl<'a, T: Item<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self { source: Source::Slice(&[]) }
    }
}

impl<'a, T> From<&'a [T]> for List<'a, T> {
    fn from(items: &'a [T]) -> Self {
        Self { source: Source::Slice(items) }
    }
}

impl<'a, T, const N: usize> From<&'a [T; N]> for List<'a, T> {
    fn from(items: &'a [T; N]) -> Self {
        Self::from(&items[..])
    }
}

impl<'a, T> From<&'a Vec<T>> for List<'a, T> {
    fn from(items: &'a Vec<T>) -> Self {
        Self::from(&items[..])
    }
}

impl<'a, T: Item<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<'a, T: Item<'a> + Eq> Eq for List<'a, T> {}

impl<'a, T: Item<'a> + std::fmt::Debug> std::fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
