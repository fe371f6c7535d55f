//! Consecutive arrays within a slice, located without repeated bounds checks.

#![allow(unsafe_code)]

/// The position of three consecutive parts in a slice: an array of `HEAD` items, then arrays of `A`
/// items, then arrays of `B` items. [`Sections::new`] checks the position once, so that
/// [`Sections::locate`] needs only one comparison.
///
/// Invariant: in a slice of `slice_length` items all three parts lie within the slice.
#[derive(Clone, Copy, Debug)]
pub struct Sections<const HEAD: usize, const A: usize, const B: usize> {
    offset: usize,
    count_a: usize,
    count_b: usize,
    slice_length: usize,
}

impl<const HEAD: usize, const A: usize, const B: usize> Default for Sections<HEAD, A, B> {
    /// Returns sections that no slice contains.
    fn default() -> Self {
        Self { offset: 0, count_a: 0, count_b: 0, slice_length: usize::MAX }
    }
}

/// The three parts that [`Sections::locate`] returns.
pub type Located<'a, T, const HEAD: usize, const A: usize, const B: usize> =
    (&'a [T; HEAD], &'a [[T; A]], &'a [[T; B]]);

impl<const HEAD: usize, const A: usize, const B: usize> Sections<HEAD, A, B> {
    /// Returns the sections that begin at item `offset` in slices of `slice_length` items; `None`
    /// if they do not fit.
    #[must_use]
    pub fn new(offset: usize, count_a: usize, count_b: usize, slice_length: usize) -> Option<Self> {
        let end = offset
            .checked_add(HEAD)?
            .checked_add(count_a.checked_mul(A)?)?
            .checked_add(count_b.checked_mul(B)?)?;
        (end <= slice_length).then_some(Self { offset, count_a, count_b, slice_length })
    }

    /// Returns the three parts of `items`; `None` if `items` does not have the length that
    /// [`Sections::new`] checked.
    #[inline(always)]
    pub fn locate<'a, T>(&self, items: &'a [T]) -> Option<Located<'a, T, HEAD, A, B>> {
        if items.len() != self.slice_length {
            return None;
        }
        // SAFETY: the slice has the length that was checked, so by the invariant all three parts
        // lie within it. An array has the alignment of its items.
        unsafe {
            let head = items.as_ptr().add(self.offset);
            let a = head.add(HEAD);
            let b = a.add(self.count_a * A);
            Some((
                &*head.cast(),
                std::slice::from_raw_parts(a.cast(), self.count_a),
                std::slice::from_raw_parts(b.cast(), self.count_b),
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
        let (head, a, b) = sections.locate(&items).unwrap();
        assert_eq!((head, a), (&[1, 2], &[[3, 4, 5, 6], [7, 8, 9, 10]][..]));
        assert_eq!(b, [[11, 12, 13], [14, 15, 16], [17, 18, 19]]);
        assert!(Sections::<2, 4, 3>::default().locate::<u8>(&[]).is_none());
        assert!(sections.locate(&items[1..]).is_none());
        assert!(Sections::<2, 4, 3>::new(1, 2, 3, 19).is_none());
        assert!(Sections::<2, 4, 3>::new(usize::MAX, 2, 3, usize::MAX).is_none());
        assert!(Sections::<2, 4, 3>::new(0, usize::MAX, 3, usize::MAX).is_none());
    }
}
