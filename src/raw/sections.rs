//! Arrays that follow one another in a slice, found there again and again.

#![allow(unsafe_code)]

/// Where an array of `HEAD` items, some of `A` and some of `B` follow one another in a slice: checked
/// once, so that to find them costs one comparison.
///
/// Invariant: in a slice of `length` items all of them lie within it.
#[derive(Clone, Copy, Debug)]
pub struct Sections<const HEAD: usize, const A: usize, const B: usize> {
    at: usize,
    many_a: usize,
    many_b: usize,
    length: usize,
}

impl<const HEAD: usize, const A: usize, const B: usize> Default for Sections<HEAD, A, B> {
    /// Found in no slice.
    fn default() -> Self {
        Self { at: 0, many_a: 0, many_b: 0, length: usize::MAX }
    }
}

/// What [`Sections`] finds: the head, and the arrays.
pub type Found<'a, T, const HEAD: usize, const A: usize, const B: usize> =
    (&'a [T; HEAD], &'a [[T; A]], &'a [[T; B]]);

impl<const HEAD: usize, const A: usize, const B: usize> Sections<HEAD, A, B> {
    /// So many arrays of `A` and of `B` behind the head, which begins at item `at`, in slices of this
    /// length; `None` if they do not fit.
    pub fn new(at: usize, many_a: usize, many_b: usize, length: usize) -> Option<Self> {
        let end = at
            .checked_add(HEAD)?
            .checked_add(many_a.checked_mul(A)?)?
            .checked_add(many_b.checked_mul(B)?)?;
        (end <= length).then_some(Self { at, many_a, many_b, length })
    }

    /// Finds them in a slice; `None` if it is not of the length they were made for.
    #[inline(always)]
    pub fn of<'a, T>(&self, items: &'a [T]) -> Option<Found<'a, T, HEAD, A, B>> {
        if items.len() != self.length {
            return None;
        }
        // SAFETY: by the invariant all of this lies within the slice. An array is aligned as its
        // items are.
        unsafe {
            let head = items.as_ptr().add(self.at);
            let a = head.add(HEAD);
            let b = a.add(self.many_a * A);
            Some((
                &*head.cast(),
                std::slice::from_raw_parts(a.cast(), self.many_a),
                std::slice::from_raw_parts(b.cast(), self.many_b),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_where_they_were_said_to_be_and_nowhere_else() {
        let items: Vec<u8> = (0..20).collect();
        let sections = Sections::<2, 4, 3>::new(1, 2, 3, items.len()).unwrap();
        let (head, a, b) = sections.of(&items).unwrap();
        assert_eq!((head, a), (&[1, 2], &[[3, 4, 5, 6], [7, 8, 9, 10]][..]));
        assert_eq!(b, [[11, 12, 13], [14, 15, 16], [17, 18, 19]]);
        assert!(Sections::<2, 4, 3>::default().of::<u8>(&[]).is_none());
        assert!(sections.of(&items[1..]).is_none());
        assert!(Sections::<2, 4, 3>::new(1, 2, 3, 19).is_none());
        assert!(Sections::<2, 4, 3>::new(usize::MAX, 2, 3, usize::MAX).is_none());
        assert!(Sections::<2, 4, 3>::new(0, usize::MAX, 3, usize::MAX).is_none());
    }
}
