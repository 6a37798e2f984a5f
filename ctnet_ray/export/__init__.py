"""From a version to what `ctnet_ray.serving` scores with."""
