import asyncio

from bridge.emulator import Clock


async def test_emulated_time_follows_the_speed_without_a_jump() -> None:
    clock = Clock(1e6)
    began = clock.now()
    await clock.sleep(1000)
    assert clock.now() - began >= 1000
    before = clock.now()
    clock.run_at(1e-6)
    assert 0 <= clock.now() - before < 1e5


async def test_emulated_time_starts_at_the_real_time() -> None:
    clock = Clock(1)
    assert abs(clock.now() - clock.real_now()) < 5
    await asyncio.wait_for(clock.sleep(0), 1)
