//! Documents to validated settings, and the difference of two settings.
