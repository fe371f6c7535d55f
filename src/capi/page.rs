//! Copies a page of rows to an array of the caller, for list calls.

use super::error::CallError;
use super::handle::check_not_null;
use super::layout::Versioned;
use super::output::check_out;

/// The page that a list call requests, and the pointers that receive the results.
pub(crate) struct Page<R> {
    /// Index of the first item of the page.
    pub(crate) first: usize,
    pub(crate) rows: *mut R,
    pub(crate) capacity: usize,
    /// Receives the number of rows that were written.
    pub(crate) out_count: *mut usize,
    /// Receives the total number of items. May be NULL.
    pub(crate) out_total: *mut usize,
}

/// Copies a page of items. The `size` member of the first row is the stride of the array in bytes.
/// Returns the number of rows that were written.
///
/// # Safety
/// `rows` is NULL or valid for writes of `capacity` rows of that size. `out_count` and `out_total`
/// are NULL or valid for a write.
pub(crate) unsafe fn write_page<'a, T: 'a, R: Versioned + From<&'a T>>(
    items: &'a [T],
    page: Page<R>,
) -> Result<usize, CallError> {
    let Page { first, rows, capacity, out_count, out_total } = page;
    check_not_null(out_count)?;
    let page_items = items.get(first..).unwrap_or_default();
    let count = page_items.len().min(capacity);
    if capacity > 0 {
        // SAFETY: the caller guarantees the first row.
        let first_row = unsafe { check_out(rows) }?;
        for (index, item) in page_items[..count].iter().enumerate() {
            // SAFETY: the caller guarantees `capacity` rows of the size of the first row.
            unsafe { first_row.element(index) }.write(&R::from(item));
        }
    }
    // SAFETY: `out_count` is not NULL. `out_total` is written only if it is not NULL.
    unsafe {
        out_count.write(count);
        if !out_total.is_null() {
            out_total.write(items.len());
        }
    }
    Ok(count)
}
