from .inherit import Inheritance, inherit, inheritance

__all__ = ["Inheritance", "inherit", "inheritance"]
