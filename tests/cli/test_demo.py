def test_demo(run, digits_ghn, tmp_path):
    path = tmp_path / "demo.png"
    code, out, _ = run("demo", "--ghn", digits_ghn, "--network", "shufflenet_v2_x0_5", "--out", path)
    assert code == 0
    assert out[0] == f"shufflenet_v2_x0_5 on 355 test images of digits, by {digits_ghn}"
    assert [line.split(" ")[0] for line in out[4:7]] == ["random", "predicted", "1"]
    assert path.read_bytes().startswith(b"\x89PNG")
