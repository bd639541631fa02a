"""AlexNet, reproduced: the network, data, training and experiments of Krizhevsky, Sutskever and Hinton (2012)."""
