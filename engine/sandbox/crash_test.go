package sandbox_test

// child is what a test starts to kill it.
func child(string) int { return 1 }
