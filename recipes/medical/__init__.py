"""Medical imaging: adapt a pretrained network to X-rays, slices or microscopy, with the guards that medicine needs."""
