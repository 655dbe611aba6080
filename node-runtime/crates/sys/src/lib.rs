//! All raw system calls of the node half, as safe functions on owned descriptors.
