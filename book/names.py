"""Labels of the comparisons of the page "Claims and evidence", as the records have them."""

SCRATCH, PRETRAINED, UNET, WIDE, SWIN = "KAF from scratch", "KAF pretrained", "UNet", "wide UNet", "SwinUNETR"
OTHERS = ("Rotation", "SimCLR", "GCL", "PCL")
LONGER = f"{UNET}: as many steps"  # on its labels alone, for as long as pretraining and fine-tuning together
TAUGHT = f"{WIDE} self-trained"
STRONGER = "twice the augmentation"
FASTER = f"{STRONGER}, four times the rate"  # of learning
LIGHT = f"{SCRATCH}: light fusion"
BEGUN = "torch's initialisation"  # of weights, in place of He's
ALWAYS = f"{BEGUN}, intensities of every slice"
LONG_PRETRAINING = f"{PRETRAINED}: brief, long pretraining"
AFTER_2500 = (f"{SCRATCH}: 2500 steps", f"{WIDE}: 2500 steps")  # of the grid fewshot_laptop
