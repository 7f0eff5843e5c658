from keras_nalu.cli import main

raise SystemExit(main())
