"""Choice of test images and of subsets."""
