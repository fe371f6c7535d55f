//! Consecutive arrays within a slice, located without repeated bounds checks.

#![allow(unsafe_code)]

/// The position of three consecutive parts in a slice: one array of `HEAD` items, then
/// `middle_count` arrays of `MIDDLE` items each, then `tail_count` arrays of `TAIL` items each.
/// [`Sections::new`] checks the position once, so that [`Sections::locate`] needs only one
/// comparison.
///
/// Invariant: in a slice of `slice_length` items, all three parts lie within the slice.
#[derive(Clone, Copy, Debug)]
pub struct Sections<const HEAD: usize, const MIDDLE: usize, const TAIL: usize> {
    offset: usize,
    middle_count: usize,
    tail_count: usize,
    slice_length: usize,
}

impl<const HEAD: usize, const MIDDLE: usize, const TAIL: usize> Default
    for Sections<HEAD, MIDDLE, TAIL>
{
    /// Returns sections that no slice of items with a size has, so [`Sections::locate`] returns
    /// `None`. A slice of zero-sized items can have this length. In such a slice, the head is in
    /// bounds, and the other parts are empty.
    fn default() -> Self {
        Self { offset: 0, middle_count: 0, tail_count: 0, slice_length: usize::MAX }
    }
}

/// The three parts that [`Sections::locate`] returns.
pub type Located<'a, T, const HEAD: usize, const MIDDLE: usize, const TAIL: usize> =
    (&'a [T; HEAD], &'a [[T; MIDDLE]], &'a [[T; TAIL]]);

impl<const HEAD: usize, const MIDDLE: usize, const TAIL: usize> Sections<HEAD, MIDDLE, TAIL> {
    /// Returns the sections that begin at item `offset` in slices of `slice_length` items; `None`
    /// if they do not fit.
    #[must_use]
    pub fn new(
        offset: usize,
        middle_count: usize,
        tail_count: usize,
        slice_length: usize,
    ) -> Option<Self> {
        let end = offset
            .checked_add(HEAD)?
            .checked_add(middle_count.checked_mul(MIDDLE)?)?
            .checked_add(tail_count.checked_mul(TAIL)?)?;
        (end <= slice_length).then_some(Self { offset, middle_count, tail_count, slice_length })
    }

    /// Returns the three parts of `items`; `None` if `items` does not have the length that
    /// [`Sections::new`] checked.
    #[inline(always)]
    pub fn locate<'a, T>(&self, items: &'a [T]) -> Option<Located<'a, T, HEAD, MIDDLE, TAIL>> {
        if items.len() != self.slice_length {
            return None;
        }
        // SAFETY: the slice has the length that was checked, so by the invariant all three parts
        // lie within it. An array has the alignment of its items.
        unsafe {
            let head = items.as_ptr().add(self.offset);
            let middle = head.add(HEAD);
            let tail = middle.add(self.middle_count * MIDDLE);
            Some((
                &*head.cast(),
                std::slice::from_raw_parts(middle.cast(), self.middle_count),
                std::slice::from_raw_parts(tail.cast(), self.tail_count),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_located_only_in_slices_of_the_checked_length() {
        let items: Vec<u8> = (0..20).collect();
        let sections = Sections::<2, 4, 3>::new(1, 2, 3, items.len()).unwrap();
        let (head, middle, tail) = sections.locate(&items).unwrap();
        assert_eq!((head, middle), (&[1, 2], &[[3, 4, 5, 6], [7, 8, 9, 10]][..]));
        assert_eq!(tail, [[11, 12, 13], [14, 15, 16], [17, 18, 19]]);
        assert!(Sections::<2, 4, 3>::default().locate::<u8>(&[]).is_none());
        assert!(sections.locate(&items[1..]).is_none());
        assert!(Sections::<2, 4, 3>::new(1, 2, 3, 19).is_none());
        assert!(Sections::<2, 4, 3>::new(usize::MAX, 2, 3, usize::MAX).is_none());
        assert!(Sections::<2, 4, 3>::new(0, usize::MAX, 3, usize::MAX).is_none());
    }
}
