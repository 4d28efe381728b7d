//! Developer commands of evenkeel as a library: the network-namespace lab is used by the end-to-end tests as well.
