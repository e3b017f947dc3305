"""Labels: true actions that pretraining may use, and the datasets that hold them."""
