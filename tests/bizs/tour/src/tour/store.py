from __future__ import annotations

from sqlalchemy import ForeignKey, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    pets: Mapped[list[Pet]] = relationship(back_populates="owner")


class Pet(Base):
    __tablename__ = "pet"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
    owner: Mapped[Owner] = relationship(back_populates="pets")


engine = create_engine("sqlite://")
made = []


class Noting(Session):
    pass


@event.listens_for(Noting, "before_flush")
def note(session, context, instances):
    made.extend(sorted(type(row).__name__ for row in session.new))


def use():
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    made.clear()
    with Noting(engine) as session:
        session.add(Owner(name="Ann", pets=[Pet(name="Rex"), Pet(name="Tom")]))
        session.commit()
        query = select(Pet.name).join(Pet.owner).where(Owner.name == "Ann").order_by(Pet.name)
        return {"pets": list(session.scalars(query)), "made": list(made)}
